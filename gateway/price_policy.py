"""A tenant's policy on prices, as the admin API takes it."""

from typing import Annotated, Final

from msgspec import UNSET, Meta, Struct, UnsetType

from schemas.prices import ACTIONS, POLICY_RANGES, Action


def _range(name: str) -> Meta:
    """For readers: `producers.tenant.checked` holds it."""
    least, most = POLICY_RANGES[name]
    return Meta(extra_json_schema={"minimum": least, "maximum": most})


_RISE: Final = _range("max_increase_percent")
_FALL: Final = _range("max_decrease_percent")
_USUAL_RISE: Final = _range("usual_increase_percent")
_USUAL_FALL: Final = _range("usual_decrease_percent")
_FACTOR: Final = _range("jump_factor")
_WINDOW: Final = _range("flap_window_s")
_SHARE: Final = _range("breaker_share_percent")
_CHANGE: Final = _range("breaker_change_percent")
_LEAST: Final = _range("breaker_min_changes")
_USUAL: Final = "A {} by so much is no jump of a new product; the more moves are known, the less of it counts."
_ACTIONS: Final = Meta(
    description="What is done about a finding, by its name; null is the default.",
    extra_json_schema={
        "propertyNames": {"enum": list(ACTIONS)},
        "additionalProperties": {"enum": [*Action, None]},
    },
)


def _says(text: str) -> Meta:
    return Meta(description=text)


class PricesChange(Struct, forbid_unknown_fields=True):
    """Which changes of prices are normal, and what is done about others; null is the default."""

    max_increase_percent: (
        Annotated[int, _RISE, _says("Fixed bound of any rise; none by default.")] | UnsetType | None
    ) = UNSET
    max_decrease_percent: (
        Annotated[int, _FALL, _says("Fixed bound of any fall; none by default.")] | UnsetType | None
    ) = UNSET
    usual_increase_percent: Annotated[int, _USUAL_RISE, _says(_USUAL.format("rise"))] | UnsetType | None = UNSET
    usual_decrease_percent: Annotated[int, _USUAL_FALL, _says(_USUAL.format("fall"))] | UnsetType | None = UNSET
    jump_factor: (
        Annotated[int, _FACTOR, _says("Standard deviations of a product's own moves, beyond which is a jump.")]
        | UnsetType
        | None
    ) = UNSET
    flap_window_s: (
        Annotated[int, _WINDOW, _says("Two prices that take turns within it are flapping; 0 looks for none.")]
        | UnsetType
        | None
    ) = UNSET
    breaker_share_percent: (
        Annotated[int, _SHARE, _says("A body is held when so many of its prices move too far the same way; 0: never.")]
        | UnsetType
        | None
    ) = UNSET
    breaker_change_percent: (
        Annotated[int, _CHANGE, _says("Too far is a fall by more, or the rise that would undo it.")] | UnsetType | None
    ) = UNSET
    breaker_min_changes: (
        Annotated[int, _LEAST, _says("Bodies with fewer comparable prices are never held.")] | UnsetType | None
    ) = UNSET
    actions: Annotated[dict[str, str | None], _ACTIONS] | UnsetType | None = UNSET
