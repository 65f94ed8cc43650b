"""Configuration from a file and from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from labelguard.settings import BadSettings, Settings, load_settings, settings_markdown, shown

DOCS = Path(__file__).parents[2] / "docs"


def problems(path: Path | None = None, **environ: str) -> list[str]:
    """What is wrong with a configuration."""
    with pytest.raises(BadSettings) as caught:
        load_settings(path, {f"LABELGUARD_{name}": value for name, value in environ.items()})
    return str(caught.value).splitlines()


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reads a ``labelguard.yaml`` that happens to lie about."""
    monkeypatch.chdir(tmp_path)


def test_without_anything_the_defaults_hold() -> None:
    """A first start needs no configuration."""
    assert load_settings(environ={}) == Settings()


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    """What the file says holds where no variable is set; an empty variable is not set."""
    file = tmp_path / "conf.yaml"
    file.write_text("port: 9000\nstudio_url: http://studio:8080/\nlog_level: DEBUG\n", encoding="utf-8")

    settings = load_settings(
        environ={"LABELGUARD_CONFIG": str(file), "LABELGUARD_PORT": "9001", "LABELGUARD_LOG_LEVEL": ""}
    )

    assert (settings.port, settings.studio_url, settings.log_level) == (9001, "http://studio:8080", "DEBUG")


def test_labelguard_yaml_in_the_working_directory_is_read(tmp_path: Path) -> None:
    """No variable is needed to find it."""
    (tmp_path / "labelguard.yaml").write_text("port: 9000\n", encoding="utf-8")

    assert load_settings(environ={}).port == 9000


def test_a_secret_can_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    """As container secrets do; in the configuration file the path is relative to it."""
    (tmp_path / "key").write_text("s3cret\n", encoding="utf-8")
    (tmp_path / "labelguard.yaml").write_text("api_token_file: key\n", encoding="utf-8")

    settings = load_settings(environ={"LABELGUARD_STUDIO_API_KEY_FILE": str(tmp_path / "key")})

    assert settings.studio_api_key.get_secret_value() == "s3cret"
    assert settings.api_token.get_secret_value() == "s3cret"


def test_targets_of_alerts_come_from_json_and_from_their_own_variables() -> None:
    """Both ways together make one set of targets."""
    settings = load_settings(
        environ={"LABELGUARD_NOTIFY": '{"ops": "slack://a/b/c"}', "LABELGUARD_NOTIFY_LEAD": "mailto://x"}
    )

    assert {name: address.get_secret_value() for name, address in settings.notify.items()} == {
        "ops": "slack://a/b/c",
        "lead": "mailto://x",
    }


def test_every_mistake_is_reported_at_once(tmp_path: Path) -> None:
    """Each names the variable or the file's line, the value, and the fix."""
    file = tmp_path / "conf.yaml"
    file.write_text("studo_url: http://x\nport: many\nport: 3\n", encoding="utf-8")

    assert problems(
        file,
        STUDO_URL="http://x",
        PUBLIC_URL="here",
        NIGHTLY_AT="3",
        LOG_LEVEL="debgu",
        RECONCILE_MINUTES="0",
        NOTIFY="[",
        API_TOKEN_FILE="/no/such/file",
    ) == [
        f"{file}, line 3: `port` is written twice, first in line 2; keep one of them.",
        f"{file}, line 1: `studo_url` is not a setting; did you mean studio_url?",
        "LABELGUARD_API_TOKEN_FILE names the file /no/such/file, which cannot be read: no such file or directory.",
        'LABELGUARD_NOTIFY must be JSON such as {"lead": "mailto://..."}.',
        "LABELGUARD_STUDO_URL is not a setting; did you mean LABELGUARD_STUDIO_URL?",
        "LABELGUARD_PUBLIC_URL must be an address such as http://localhost:8080, not 'here'.",
        f"{file}, line 2: `port` must be a whole number, not 'many'.",
        "LABELGUARD_RECONCILE_MINUTES must be more than 0, not '0'.",
        "LABELGUARD_NIGHTLY_AT must be a time of day such as 03:00, not '3'.",
        "LABELGUARD_LOG_LEVEL is 'debgu'; did you mean DEBUG?",
    ]


def test_a_named_file_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    """A silent default would hide a wrong path."""
    assert problems(CONFIG=str(tmp_path / "gone.yaml")) == [
        f"The configuration file {tmp_path / 'gone.yaml'} does not exist."
    ]


def test_both_forms_of_a_secret_are_one_too_many(tmp_path: Path) -> None:
    """Which of them counts would be a guess."""
    assert problems(API_TOKEN="a", API_TOKEN_FILE=str(tmp_path / "x")) == [
        "LABELGUARD_API_TOKEN_FILE and LABELGUARD_API_TOKEN are both set; keep one."
    ]


def test_where_label_studio_is_for_other_commands_stops_nothing() -> None:
    """The variable of `studio`, `demo` and the tests is near a setting's name, and is none."""
    assert load_settings(environ={"LABELGUARD_STUDIO_PYTHON": "/opt/studio/bin/python"}) == load_settings(environ={})


def test_a_variable_that_is_near_to_no_setting_is_logged_and_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Container platforms invent variables from a service's name."""
    load_settings(environ={"LABELGUARD_SERVICE_ACCOUNT_QUX": "1"})

    assert "LABELGUARD_SERVICE_ACCOUNT_QUX is not a setting" in caplog.text


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    """Neither in what is printed, nor in a mistake about them."""
    secret = "pl4nted"
    settings = load_settings(
        environ={
            "LABELGUARD_DATABASE_URL": f"postgresql://user:{secret}@host/db?sslpassword={secret}",
            "LABELGUARD_STUDIO_URL": f"http://user:{secret}@studio",
            "LABELGUARD_STUDIO_API_KEY": secret,
            "LABELGUARD_NOTIFY_LEAD": f"slack://{secret}",
        }
    )
    values = shown(settings)

    assert secret not in str(values)
    assert secret not in repr(settings.studio_api_key) + repr(settings.notify)
    assert values["database_url"] == "postgresql://user:(hidden)@host/db?sslpassword=(hidden)"
    assert (values["studio_api_key"], values["api_token"]) == ("(hidden)", "")
    assert secret not in "".join(problems(DATABASE_URL=secret))


def test_the_documentation_of_settings_is_current() -> None:
    """Made with ``labelguard config --write-docs docs``."""
    assert settings_markdown() == (DOCS / "configuration.md").read_text(encoding="utf-8")
