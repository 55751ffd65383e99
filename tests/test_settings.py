"""Settings from the environment: read whole, checked whole, no secret lost or mangled."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from fuze_bench.errors import SettingsError
from fuze_bench.pipeline.settings import Settings
from fuze_bench.pipeline.store import Store

PASSWORD = "p/a#s?s@w:o%r[d]+ü"


def test_what_is_set_comes_back_from_the_environment_it_makes() -> None:
    settings = Settings.from_mapping(
        {
            "FUZE_LEASE_S": "3.5",
            "FUZE_TRACKING_PARAMETERS": "a, b",
            "FUZE_DATA_DIR": "/somewhere",
            "FUZE_RETRY_INTERVALS_S": "none",
            "REDIS_URL": "redis://h:1/2",
            "DATABASE_URL": "postgresql://h/d",
            "HOME": "/root",
        }
    )
    assert settings.lease_s == 3.5
    assert settings.tracking_parameters == ("a", "b")
    assert settings.retry_intervals_s == ()
    assert Settings.from_mapping(settings.to_mapping()) == settings


def test_the_defaults_that_operators_rely_on() -> None:
    defaults = Settings()
    assert (defaults.job_timeout_s, defaults.retry_intervals_s) == (600, (60.0, 300.0))
    assert defaults.recovery_interval_s == 30
    assert (defaults.host_fetches, defaults.fetch_max_redirects) == (2, 5)


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(SettingsError, match="FUZE_LEASES_S: did you mean 'FUZE_LEASE_S'"):
        Settings.from_mapping({"FUZE_LEASES_S": "3"})


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"FUZE_LEASE_S": "soon"}, "FUZE_LEASE_S='soon' is not a number"),
        ({"FUZE_LEASE_S": "-1"}, "FUZE_LEASE_S=-1.0 cannot be used"),
        ({"FUZE_LEASE_S": "nan"}, "FUZE_LEASE_S=nan"),
        ({"FUZE_FALLBACK_THREADS": "0"}, "FUZE_FALLBACK_THREADS=0 cannot be used"),
        ({"REDIS_URL": "http://x"}, "REDIS_URL starts with 'http'"),
        ({"REDIS_PORT": "six"}, "REDIS_PORT='six' is not a number"),
        ({"REDIS_SSL": "perhaps"}, "REDIS_SSL='perhaps'"),
        ({"DATABASE_URL": "mysql://x"}, "DATABASE_URL starts with 'mysql'"),
        ({"DATABASE_URL": "postgresql+psycopg2://x"}, "DATABASE_URL starts with 'postgresql.psycopg2'"),
        ({"FUZE_LEASE_S": "inf"}, "FUZE_LEASE_S=inf cannot be used"),
        ({"FUZE_EMBEDDING_DTYPE": "int8"}, "FUZE_EMBEDDING_DTYPE='int8': use auto, float32, bfloat16"),
    ],
)
def test_a_wrong_value_is_named(environment: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.from_mapping(environment)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:s3cret℅@host/x",
        "postgresql://u:s3cret@[::1:1/x",
        "postgresql://u:half@s3cret@host/x",
        "postgresql://u:half@s3cret/rest@host/x",
        "postgresql://u:pw@host:s3cret/x",
    ],
)
def test_a_database_url_that_cannot_be_read_is_not_shown(url: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="DATABASE_URL cannot be read") as raised:
        Store(Settings.from_mapping({"DATABASE_URL": url, "FUZE_DATA_DIR": str(tmp_path)}))
    assert "s3cret" not in str(raised.value)


def test_redis_from_its_parts() -> None:
    parts = {
        "REDIS_HOST": "::1",
        "REDIS_PORT": "7000",
        "REDIS_DB": "3",
        "REDIS_USERNAME": "me",
        "REDIS_SSL": "true",
    }
    url = Settings.from_mapping({**parts, "REDIS_PASSWORD": PASSWORD}).redis_url
    assert url is not None
    split = urlsplit(url)
    assert (split.scheme, split.hostname, split.port, split.path) == ("rediss", "::1", 7000, "/3")
    assert (split.username, unquote(split.password or "")) == ("me", PASSWORD)


def test_redis_url_wins_over_its_parts() -> None:
    assert Settings.from_mapping({"REDIS_URL": "redis://one", "REDIS_HOST": "two"}).redis_url == "redis://one"


def test_postgresql_is_spoken_with_psycopg() -> None:
    assert Settings(database_url="postgres://u:p@h/d").sqlalchemy_url == "postgresql+psycopg://u:p@h/d"
