"""What metadata strings read as: decimals, moments, places."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_local.search.readings import (
    EARTH_RADIUS_M,
    MAX_DECIMAL_CHARS,
    day_moments,
    decimal_of,
    distance_m,
    instant,
    moments_of,
    place_of,
    sort_key,
)

DAY_US = 86_400_000_000


def us(*fields: int) -> int:
    return instant(datetime(*fields, tzinfo=UTC))  # type: ignore[arg-type,misc]  # ints only


@pytest.mark.parametrize("text", ["0", "10", "-3.50", "+7", ".5", "5.", "007", "9" * 60])
def test_plain_decimals_are_numbers(text: str) -> None:
    assert decimal_of(text) == Decimal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "-",
        "1e3",
        "1_000",
        "1,000",
        " 1",
        "1\n",
        "0x10",
        "nan",
        "inf",
        "١٢",
        "1.2.3",
        "--1",
    ],
)
def test_nothing_else_is_a_number(text: str) -> None:
    assert decimal_of(text) is None


def test_endless_digits_are_text() -> None:
    assert decimal_of("1" * MAX_DECIMAL_CHARS) is not None
    assert decimal_of("1" * (MAX_DECIMAL_CHARS + 1)) is None


@pytest.mark.parametrize(
    ("text", "start", "length"),
    [
        ("2024", us(2024, 1, 1), 366 * DAY_US),
        ("2023", us(2023, 1, 1), 365 * DAY_US),
        ("9999", us(9999, 1, 1), 365 * DAY_US),
        ("2024-02", us(2024, 2, 1), 29 * DAY_US),
        ("2024-12", us(2024, 12, 1), 31 * DAY_US),
        ("2024-05-17", us(2024, 5, 17), DAY_US),
        ("2024-05-17T10:30", us(2024, 5, 17, 10, 30), 1),
        ("2024-05-17 10:30:15", us(2024, 5, 17, 10, 30, 15), 1),
        ("2024-05-17T10:30:15Z", us(2024, 5, 17, 10, 30, 15), 1),
        ("2024-05-17t10:30:15.25z", us(2024, 5, 17, 10, 30, 15, 250_000), 1),
        ("2024-05-17T10:30:15,123456789", us(2024, 5, 17, 10, 30, 15, 123_456), 1),
        ("2024-05-17T10:30:15+02:00", us(2024, 5, 17, 8, 30, 15), 1),
        ("2024-05-17T10:30-0530", us(2024, 5, 17, 16, 0), 1),
        ("2024-05-17T10:30+02", us(2024, 5, 17, 8, 30), 1),
        ("1715941815", us(2024, 5, 17, 10, 30, 15), 1),
        ("1715941815.25", us(2024, 5, 17, 10, 30, 15, 250_000), 1),
        ("1715941815250", us(2024, 5, 17, 10, 30, 15, 250_000), 1),
        ("1715941815250000", us(2024, 5, 17, 10, 30, 15, 250_000), 1),
        ("1715941815250000123", us(2024, 5, 17, 10, 30, 15, 250_000), 1),
        ("0", 0, 1),
        ("-0.0000001", -1, 1),
        ("20240517", 20_240_517_000_000, 1),
    ],
)
def test_times_of_every_form_are_moments(text: str, start: int, length: int) -> None:
    assert moments_of(text) == (start, start + length)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "0000",
        "2024-13",
        "2024-00",
        "2023-02-29",
        "2024-05-17T24:00",
        "2024-05-17T10:60",
        "2024-05-17T10:30:60",
        "2024-05-17T10:30+24:00",
        "2024-05-17T10:30+02:60",
        "2024-05-17T10",
        "2024-5-17",
        "17.05.2024",
        "2024-05-17 ",
        "2024-05-17\n",
        "٢٠٢٤",
        "1e9",
        "1" + "0" * 20,
    ],
)
def test_what_is_no_time_is_none(text: str) -> None:
    assert moments_of(text) is None


@given(st.datetimes(timezones=st.just(UTC)))
def test_what_python_writes_of_a_moment_reads_as_that_moment(moment: datetime) -> None:
    expected = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert instant(moment) == expected
    assert moments_of(moment.isoformat()) == (expected, expected + 1)
    assert moments_of(moment.date().isoformat()) == day_moments(moment.date())


@given(st.dates(max_value=date(9999, 12, 30)))
def test_days_months_and_years_end_where_the_next_begin(day: date) -> None:
    read = [moments_of(day.isoformat()), moments_of((day + timedelta(1)).isoformat())]
    assert read[0] is not None
    assert read[1] is not None
    assert read[0][1] == read[1][0]
    for form in ("%Y-%m", "%Y"):
        whole = moments_of(f"{day.year:04}" if form == "%Y" else day.isoformat()[:7])
        assert whole is not None
        assert whole[0] <= read[0][0]
        assert read[0][1] <= whole[1]


@given(st.text())
def test_no_string_raises(text: str) -> None:
    decimal_of(text)
    moments_of(text)
    place_of(text)
    sort_key(text)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("52.52,13.405", (52.52, 13.405)),
        (" -90 , +180 ", (-90.0, 180.0)),
        ("0,0", (0.0, 0.0)),
        ("90.1,0", None),
        ("90." + "0" * 40 + "1,0", None),
        ("0,180.1", None),
        ("1,2,3", None),
        ("1", None),
        ("", None),
        ("1e1,2", None),
        ("nan,0", None),
        ("52,52 13,4", None),
    ],
)
def test_places_are_two_decimals_in_range(text: str, place: tuple[float, float] | None) -> None:
    assert place_of(text) == place


def test_distances_are_those_on_the_sphere() -> None:
    assert distance_m((0, 0), (0, 0)) == 0
    quarter = EARTH_RADIUS_M * 3.141592653589793 / 2
    assert distance_m((0, 0), (90, 0)) == pytest.approx(quarter)
    assert distance_m((0, 179.5), (0, -179.5)) == pytest.approx(quarter / 90)
    assert distance_m((0, 0), (0, 180)) == pytest.approx(2 * quarter)
    # Berlin to Paris: 878 km.
    assert distance_m((52.52, 13.405), (48.8566, 2.3522)) == pytest.approx(877_500, rel=1e-3)


def test_numbers_come_before_text_and_text_before_nothing() -> None:
    values = ["b", None, "10", "9", "a", "-1.5", "", "1e3"]
    assert sorted(values, key=sort_key) == ["-1.5", "9", "10", "", "1e3", "a", "b", None]
