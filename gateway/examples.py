"""Rows that people can try: each is accepted as it stands, and a test sends them all."""

from typing import Any, Final

_ORDER: Final = {
    "external_order_id": "A-1001",
    "customer_id": "C-7",
    "total_amount": "39.90",
    "currency": "EUR",
    "order_status": "paid",
    "order_date": "2026-01-31T12:00:00Z",
    "items": [{"product_id": "P-1", "quantity": 2, "unit_price": "19.95"}],
}
_CUSTOMER: Final = {"customer_id": "C-7", "name": "Ada Lovelace", "email": "ada@example.com", "country": "GB"}
_PRODUCT: Final = {"product_id": "P-1", "sku": "MUG-BLUE", "name": "Blue mug", "price": "19.95", "category": "mugs"}

ORDERS: Final[dict[str, Any]] = {
    "two orders": '{"external_order_id":"A-1001","customer_id":"C-7","total_amount":"39.90","currency":"EUR",'
    '"order_status":"paid","order_date":"2026-01-31T12:00:00Z","items":[{"product_id":"P-1","quantity":2,'
    '"unit_price":"19.95"}]}\n'
    '{"external_order_id":"A-1002","total_amount":12.5,"currency":"EUR","order_status":"pending",'
    '"order_date":"2026-01-31T13:30:00+01:00"}\n',
    "one order": _ORDER,
    "with fields of your own, kept in raw_payload": _ORDER | {"gift_note": "Happy birthday", "channel": "web"},
}
CORRECTIONS: Final[dict[str, Any]] = {
    "a line of …/errors, its row put right": '{"chunk":1,"line":1,"code":"too_many_decimals","row":'
    '"{\\"external_order_id\\":\\"A-1003\\",\\"total_amount\\":\\"12.50\\",\\"currency\\":\\"EUR\\",'
    '\\"order_status\\":\\"paid\\",\\"order_date\\":\\"2026-01-31T12:00:00Z\\"}"}\n',
    "the row as an object": '{"chunk":1,"line":1,"row":{"external_order_id":"A-1003","total_amount":"12.50",'
    '"currency":"EUR","order_status":"paid","order_date":"2026-01-31T12:00:00Z"}}\n',
}
CUSTOMERS: Final[dict[str, Any]] = {
    "two customers": '{"customer_id":"C-7","name":"Ada Lovelace","email":"ada@example.com","country":"GB"}\n'
    '{"customer_id":"C-8","name":"Charles Babbage","updated_at":"2026-01-31T12:00:00Z"}\n',
    "one customer": _CUSTOMER,
    "with fields of your own, kept in attributes": _CUSTOMER | {"attributes": {"vip": True}, "newsletter": "weekly"},
}
PRODUCTS: Final[dict[str, Any]] = {
    "two products": '{"product_id":"P-1","sku":"MUG-BLUE","name":"Blue mug","price":"19.95","category":"mugs"}\n'
    '{"product_id":"P-2","name":"Red mug","price":21,"currency":"USD","active":false}\n',
    "one product": _PRODUCT,
    "with fields of your own, kept in attributes": _PRODUCT | {"attributes": {"colour": "blue"}, "weight_g": 340},
}
MOVEMENTS: Final[dict[str, Any]] = {
    "a count, and a correction that must follow it": '{"product_id":"P-2","kind":"set","quantity":40}\n'
    '{"product_id":"P-2","kind":"adjusted","quantity":-2,"expected_quantity":40}\n',
    "one delivery": {
        "product_id": "P-1",
        "kind": "received",
        "quantity": 100,
        "event_id": "delivery-17/1",
        "occurred_at": "2026-01-31T12:00:00Z",
    },
}
_PRICE: Final = {"old_price": "19.95", "new_price": "17.95", "currency": "EUR", "source": "repricer"}
PRICE_EVENT: Final[dict[str, Any]] = {
    "a sale": _PRICE | {"metadata": {"campaign": "winter"}},
    "no more than the price": {"new_price": 18},
}
PRICE_EVENTS: Final[dict[str, Any]] = {
    "two changes": '{"product_id":"P-1","old_price":"19.95","new_price":"17.95","source":"repricer"}\n'
    '{"product_id":"P-2","new_price":24,"currency":"USD","source":"repricer"}\n',
    "one change": _PRICE | {"product_id": "P-1"},
}
PRICE_LIMITS: Final[dict[str, Any]] = {"both": {"floor": "10.00", "ceiling": "30.00"}, "none any more": {}}
DECISIONS: Final[dict[str, Any]] = {
    "a held price after all": {
        "decision": "approve",
        "held": [{"product_id": "P-1", "held_offset": 1287}],
        "decided_by": "ada@example.com",
        "reason": "the winter sale",
    },
}
