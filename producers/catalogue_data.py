"""Words, weights and look-up tables behind `producers.generate`: merchants, people, goods, hours.

Chance comes from SHAKE-128 and all arithmetic is on integers or decimals, so the tables are the same on every
machine and Python version. No word here needs JSON escaping; names keep their accents (UTF-8).
"""

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from decimal import Context, Decimal, localcontext
from functools import cache, lru_cache
from hashlib import shake_128
from itertools import accumulate, chain, pairwise
from math import isqrt
from struct import Struct, iter_unpack
from typing import Any, Final, NamedTuple, TypeVar

T = TypeVar("T")
BLOCK: Final = 1 << 10  # rows that share one hash; part of the data's definition
PEOPLE: Final = 1 << 14  # names repeat after so many customers,
ARTICLES: Final = 1 << 12  # and nouns and prices after so many products


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


class Merchant(NamedTuple):
    """One shop: the front of its tenant id, its display name, main currency and home country."""

    slug: str
    name: str
    currency: str
    country: str


class Person(NamedTuple):
    """A full name, its ASCII form as an email's local part, a country (ISO 3166) and its dialling code."""

    name: str
    mailbox: str
    country: str
    dial: str


class Article(NamedTuple):
    """What a product is, its category and its price: in cents, and as the decimal string for a JSON row."""

    noun: str
    category: str
    cents: int
    price: str


MERCHANTS: Final = (
    Merchant("acme", "Acme General Store", "USD", "US"),
    Merchant("nordlicht", "Nordlicht Möbel", "EUR", "DE"),
    Merchant("harbour", "Harbour & Sons", "GBP", "GB"),
    Merchant("maison", "Maison Étoile", "EUR", "FR"),
    Merchant("alpenglow", "Alpenglow Sport", "CHF", "CH"),
    Merchant("maple", "Maple Row Outfitters", "CAD", "CA"),
    Merchant("sol", "Sol y Sombra", "EUR", "ES"),
    Merchant("banksia", "Banksia Trading", "AUD", "AU"),
    Merchant("bottega", "Bottega Lucente", "EUR", "IT"),
    Merchant("lioncity", "Lion City Gadgets", "SGD", "SG"),
    Merchant("kauri", "Kauri Home", "NZD", "NZ"),
    Merchant("azulejo", "Azulejo Casa", "EUR", "PT"),
)

# A price is the same number in every currency a shop takes, as many do: 19.99 in EUR, USD or GBP. So only
# currencies of similar worth are here, the most usual first.
CURRENCIES: Final = ("EUR", "USD", "GBP", "CHF", "CAD", "AUD", "SGD", "NZD")

FIRST_NAMES: Final = {
    "en": "Olivia Amelia Grace Ruby Chloe Hannah Zoë Maeve Naomi Leah Paige Tessa Oliver George Harry Noah"
    " Jack Leo Arthur Oscar Theo Ethan Caleb Owen Dylan Wesley",
    "de": "Anna Lena Jana Käthe Greta Frieda Ilse Jördis Sabine Heike Mia Clara Lukas Jonas Felix Jürgen"
    " Björn Götz Matthias Stefan Moritz Anton Emil Uwe Torsten Paul",
    "fr": "Camille Chloé Léa Inès Zoé Manon Élodie Aurélie Noémie Hélène Margaux Jeanne Louis Hugo Jules"
    " Théo Rémi François Étienne Loïc Benoît Mathieu Antoine Gaël Luc Yves",
    "es": "Lucía Sofía Martina Paula Inés Begoña Carmen Rocío Pilar Noelia Alba Ximena Hugo Mateo Martín"
    " Álvaro Iñigo Andrés Joaquín Rubén Sergio Diego Tomás Javier Nicolás Raúl",
    "it": "Giulia Sofia Aurora Chiara Martina Beatrice Elisa Noemi Ilaria Federica Marta Lucia Leonardo"
    " Francesco Lorenzo Matteo Riccardo Niccolò Davide Giacomo Stefano Luca Enrico Pietro Ettore Dario",
    "pt": "Inês Beatriz Mariana Leonor Joana Conceição Teresa Luísa Helena Débora Aline Íris João Rodrigo"
    " Tiago Gonçalo Afonso Simão Caetano Estêvão Miguel Duarte Otávio Vítor Bruno Nuno",
}
LAST_NAMES: Final = {
    "en": "Smith Taylor Brown Walker Hughes Edwards Clarke Bennett Foster O'Brien Murphy Kelly Turner"
    " Parker Reid Campbell Fraser Ward Cooper Bailey Brontë Sinclair Hayes Whitfield Marsh Lowell",
    "de": "Müller Schmidt Schneider Fischer Weber Wagner Becker Schäfer Koch Bauer Richter Wolf Schröder"
    " Krüger Hofmann Köhler Groß Jäger Weiß Böhm Lehmann Vogt Frühauf Zimmermann Huber Gruber",
    "fr": "Martin Bernard Dubois Thomas Petit Durand Leroy Moreau Lefèvre Garnier Faure Mercier Béranger"
    " Guérin Noël Chevalier François Gérard Lambert Bonnet Rousseau Vidal Caillé Desprès Marchand"
    " Lacroix",
    "es": "García Fernández González Rodríguez López Martínez Sánchez Pérez Gómez Muñoz Núñez Ibáñez Ortega"
    " Castro Vázquez Domínguez Gil Serrano Blanco Suárez Molina Peña Cordón Ibarra Zúñiga Cano",
    "it": "Rossi Russo Ferrari Esposito Bianchi Romano Colombo Ricci Marino Greco Bruno Gallo Conti Costa"
    " Giordano Mancini Rizzo Lombardi Moretti Barbieri Fontana Santoro Mariani Rinaldi Caruso D'Angelo",
    "pt": "Silva Santos Ferreira Pereira Oliveira Costa Rodrigues Martins Sousa Gonçalves Lopes Marques"
    " Araújo Conceição Simões Antunes Magalhães Falcão Guimarães Assunção Brandão Teles Nóbrega Paiva"
    " Leitão Vaz",
}
# country: (language of its names, dialling code)
COUNTRIES: Final = {
    "US": ("en", "1"), "GB": ("en", "44"), "IE": ("en", "353"), "CA": ("en", "1"), "AU": ("en", "61"),
    "NZ": ("en", "64"), "SG": ("en", "65"), "DE": ("de", "49"), "AT": ("de", "43"), "CH": ("de", "41"),
    "FR": ("fr", "33"), "BE": ("fr", "32"), "LU": ("fr", "352"), "ES": ("es", "34"), "MX": ("es", "52"),
    "AR": ("es", "54"), "IT": ("it", "39"), "SM": ("it", "378"), "PT": ("pt", "351"), "BR": ("pt", "55"),
}  # fmt: skip

# category: (cheapest, dearest in whole units of currency, nouns)
GOODS: Final = {
    "apparel": (9, 180, "T-Shirt,Hoodie,Chinos,Cardigan,Rain Jacket,Linen Shirt,Wool Scarf,Beanie"),
    "shoes": (25, 240, "Trail Runner,Sneaker,Chelsea Boot,Sandal,Loafer,Hiking Boot,Slipper"),
    "kitchen": (5, 160, "Chef's Knife,Cast Iron Pan,Espresso Cup,Kettle,Mixing Bowl,Café Press"),
    "electronics": (12, 420, "Headphones,USB-C Charger,Smart Lamp,Bluetooth Speaker,Webcam,Keyboard"),
    "garden": (3, 210, "Terracotta Pot,Pruning Shears,Watering Can,Raised Bed,Herb Seeds,Garden Lantern"),
    "beauty": (2, 70, "Hand Cream,Soap Bar,Shampoo,Lip Balm,Face Serum,Body Oil"),
    "books": (4, 60, "Notebook,Pocket Atlas,Cookbook,Sketchbook,Field Guide,Weekly Planner"),
    "toys": (6, 90, "Wooden Train,Puzzle,Plush Fox,Building Blocks,Kite,Card Game"),
    "furniture": (39, 899, "Side Table,Oak Stool,Bookshelf,Armchair,Floor Lamp,Desk"),
    "sports": (8, 260, "Yoga Mat,Dumbbell,Water Bottle,Bike Light,Climbing Rope,Tennis Racket"),
}
BRANDS: Final = _words("Aldervale Brisk Cobalt Dunmore Évora Fjellheim Halden Kestrel Lumière Morrow Onda")
STYLES: Final = _words("Classic Compact Everyday Heritage Light Modern Organic Premium Slim Travel Urban")
COLOURS: Final = _words("black white navy sand olive rust teal plum amber slate rose moss")
CHANNELS: Final = ("web", "app", "store")
SOURCES: Final = ("repricer", "erp-sync", "promotion", "catalogue", "manual")

DAYS: Final = 365
FIRST_DAY: Final = date(2025, 1, 1)  # fixed: data that depends on today could not be repeated
WEEKDAYS: Final = (106, 100, 92, 90, 92, 96, 84)
# Orders a UTC hour: quiet at night, a lunch bump, an evening peak.
HOURS: Final = (10, 6, 4, 3, 3, 5, 12, 24, 38, 48, 54, 58, 64, 58, 52, 50, 54, 62, 74, 88, 92, 78, 48, 24)

ITEMS_PER_ORDER: Final = {1: 140, 2: 63, 3: 29, 4: 16, 5: 8}
QUANTITY: Final = {1: 178, 2: 48, 3: 18, 4: 8, 6: 2, 10: 2}
MOVEMENTS: Final = {"sold": 212, "received": 24, "returned": 14, "adjusted": 6}
# (status, days from the order to its last change): orders of the last two weeks, and older ones
RECENT_DAYS: Final = 14
RECENT: Final = {
    ("pending", 0): 36, ("paid", 0): 60, ("processing", 0): 52, ("shipped", 0): 66, ("delivered", 0): 28,
    ("cancelled", 0): 14,
}  # fmt: skip
SETTLED: Final = {
    ("delivered", 2): 60, ("delivered", 3): 80, ("delivered", 5): 58, ("delivered", 8): 16,
    ("shipped", 4): 10, ("cancelled", 1): 14, ("refunded", 12): 14, ("paid", 1): 2, ("pending", 0): 2,
}  # fmt: skip


def merchant(tenant_index: int) -> Merchant:
    """The shop behind a tenant."""
    return MERCHANTS[tenant_index % len(MERCHANTS)]


def noise(seed: int, tenant_index: int, name: str, size: int) -> bytes:
    """`size` bytes that look random and depend on nothing but the arguments."""
    return shake_128(f"tillstream/{seed}/{tenant_index}/{name}".encode()).digest(size)


def draws(
    layout: str, seed: int, tenant_index: int, name: str, start: int, count: int
) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Row numbers `start` to `start + count`, each with its own uniform integers, laid out as `struct` says.

    A block of rows shares one hash, so row numbers can be had from anywhere on.
    """
    fields, end = Struct(layout), start + count

    def blocks() -> Iterator[Iterator[tuple[int, tuple[Any, ...]]]]:
        for first in range(start // BLOCK * BLOCK, end, BLOCK):
            begin, stop = max(start, first), min(end, first + BLOCK)
            block = noise(seed, tenant_index, f"{name}/{first // BLOCK}", fields.size * BLOCK)
            wanted = block[(begin - first) * fields.size : (stop - first) * fields.size]
            yield enumerate(fields.iter_unpack(wanted), begin)

    return chain.from_iterable(blocks())


def spread(weights: Mapping[T, int], size: int = 256) -> tuple[T, ...]:
    """A table of `size` slots in which each value has its share: a uniform draw picks by weight."""
    total, before, slots = sum(weights.values()), 0, list[T]()
    for value, weight in weights.items():
        before += weight
        slots += [value] * (before * size // total - len(slots))
    return tuple(slots)


@cache
def currencies(main: str) -> tuple[str, ...]:
    """256 slots: nine in ten the main currency, each other about half as frequent as the one before."""
    others = [code for code in CURRENCIES if code != main]
    tail = {code: max(1, 13 >> place) for place, code in enumerate(others)}
    return spread({main: 256 - sum(tail.values()), **tail})


@cache
def clocks() -> tuple[str, ...]:
    """65,536 ascending times of day, `HH:MM:SS`, as dense as `HOURS` says."""
    made = list[str]()
    for hour, slots in enumerate(Counter(spread(dict(enumerate(HOURS)), 1 << 16)).values()):
        seconds = (slot * 3600 // slots for slot in range(slots))
        made += [f"{hour:02d}:{second // 60:02d}:{second % 60:02d}" for second in seconds]
    return tuple(made)


@lru_cache(maxsize=2)
def people(seed: int, tenant_index: int) -> tuple[Person, ...]:
    """Who customer `n` is, at `n % PEOPLE`; six in ten live in the merchant's country."""
    home, abroad, made = merchant(tenant_index).country, tuple(COUNTRIES), list[Person]()
    first = {language: _words(names) for language, names in FIRST_NAMES.items()}
    last = {language: _words(names) for language, names in LAST_NAMES.items()}
    for where, which, given, family in iter_unpack("<4H", noise(seed, tenant_index, "people", 8 * PEOPLE)):
        country = home if where % 10 < 6 else abroad[which % len(abroad)]
        language, dial = COUNTRIES[country]
        names = first[language][given % len(first[language])], last[language][family % len(last[language])]
        made.append(Person(" ".join(names), ".".join(map(_ascii, names)), country, dial))
    return tuple(made)


@lru_cache(maxsize=2)
def articles(seed: int, tenant_index: int) -> tuple[Article, ...]:
    """What product `n` is and costs, at `n % ARTICLES`: more cheap than dear, at 19.99, 4.95 or 120.00."""
    categories, made = tuple(GOODS), list[Article]()
    chances = noise(seed, tenant_index, "articles", 8 * ARTICLES)
    for kind, which, height, ending in iter_unpack("<4H", chances):
        category = categories[kind % len(categories)]
        cheapest, dearest, text = GOODS[category]
        nouns = text.split(",")
        # The cube of a uniform draw: half of the articles lie in the cheapest eighth of the range.
        units = cheapest + ((dearest - cheapest) * height**3 >> 48)
        cents = units * 100 + (99, 99, 95, 49, 0)[ending % 5]
        made.append(Article(nouns[which % len(nouns)], category, cents, f"{cents // 100}.{cents % 100:02d}"))
    return tuple(made)


@lru_cache(maxsize=4)
def popularity(size: int) -> tuple[tuple[int, int], ...]:
    """1,024 equally likely ranges `(first, width)` of `range(size)`, by the Zipf-Mandelbrot law.

    The odds of `n` are about 1 / (n + shift). The shift grows with the square root of the size, which leaves
    the best seller of 50,000 products half a per cent of the sales.
    """
    with localcontext(Context(prec=28)):  # decimal, because the exp of floats differs between machines
        shift = Decimal(isqrt(size)) / 8
        span = ((size + shift) / shift).ln()
        edges = [int(shift * (span * band / 1024).exp() - shift) for band in range(1024)]
    return tuple((low, high - low) for low, high in pairwise([*edges, size]))


@cache
def dates() -> tuple[str, ...]:
    """The days of the year, `YYYY-MM-DD`."""
    return tuple((FIRST_DAY + timedelta(day)).isoformat() for day in range(DAYS))


@lru_cache(maxsize=4)
def day_ends(rows: int) -> tuple[int, ...]:
    """For each day but the last, the row at which the next begins; November and December are the busiest."""
    calendar = [FIRST_DAY + timedelta(day) for day in range(DAYS)]
    weights = [WEEKDAYS[day.weekday()] * (3 if day.month > 10 else 2) for day in calendar]
    sums = list(accumulate(weights))
    return tuple(rows * part // sums[-1] for part in sums[:-1])


@cache
def _ascii(name: str) -> str:
    """A name in lower-case ASCII letters: Groß -> gross, O'Brien -> obrien."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    return "".join(letter for letter in letters if "a" <= letter <= "z")
