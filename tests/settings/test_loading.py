"""Four layers, the origin of each value, and mistakes that name the key's path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.settings import SettingsError, load
from headrace.settings.checking import check_open
from headrace.settings.fields import Field, on_command_line
from headrace.settings.model import EMBEDDED
from headrace.settings.tree import Settings

UPSTREAM = """
[[models]]
name = "up"
engine = "openai"
[[models.replicas]]
url = "http://127.0.0.1:1/v1"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "headrace.toml"


def refusal(text: str, file: Path, flags: dict[str, Any] | None = None, **environ: str) -> str:
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(file, flags, environ)
    return str(caught.value).replace(str(file), "FILE")


def test_nothing_configured_is_the_declared_default_with_the_embedded_model() -> None:
    loaded = load(environ={})
    assert loaded.settings == Settings()
    assert loaded.settings.models == (EMBEDDED,)
    assert loaded.origins == {}


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(file: Path) -> None:
    file.write_text("[server]\nport = 1\nhost = 'localhost'\nlog_level = 'error'\n")
    environ = {"HEADRACE_SERVER_PORT": "2", "HEADRACE_SERVER_HOST": "::1"}
    loaded = load(file, {"server.port": "3"}, environ)
    server = loaded.settings.server
    assert (server.port, server.host, server.log_level) == (3, "::1", "error")
    assert server.log_format == "text"
    assert loaded.origins == {
        "server.port": "--port",
        "server.host": "HEADRACE_SERVER_HOST",
        "server.log_level": str(file),
    }


def test_the_environment_may_name_the_file(file: Path) -> None:
    file.write_text("[limits]\nmax_queue = 3\n")
    loaded = load(environ={"HEADRACE_CONFIG": str(file)})
    assert loaded.settings.limits.max_queue == 3


SAMPLES = {
    "server.ssl_certfile": __file__,
    "server.ssl_keyfile": __file__,
    "server.ssl_client_ca": __file__,
    "server.max_body_bytes": "2048",
    "store.keep_bytes": "2000000",
    "store.url": "memory:",
    "models[].source": "file:/m.gguf",
    "models[].sha256": "0" * 64,
}


def sample(field: Field) -> str:
    by_type = {int: "64", float: "0.5", bool: "true"}
    other = field.choices[-1] if field.choices else by_type.get(field.bare, "x")
    return SAMPLES.get(field.path, other)


ALONE = [field for field in on_command_line() if field.path != "models[].fallback"]
"""Settings that may be anything by themselves: that one names another model."""


@pytest.mark.parametrize("field", ALONE, ids=lambda field: field.path)
def test_every_flag_has_a_twin_in_the_environment_with_the_same_effect(field: Field) -> None:
    files = ("SSL_CERTFILE", "SSL_CLIENT_CA")
    base = {f"HEADRACE_SERVER_{name}": __file__ for name in files}
    value = sample(field)
    assert field.environment
    by_environment = load(environ={**base, field.environment: value})
    by_flag = load(flags={field.path: [value] if field.several else value}, environ=base)
    assert by_environment.settings == by_flag.settings != Settings()
    path = field.path.replace("[]", "[0]")
    assert by_environment.origins[path] == field.environment
    assert by_flag.origins[path] == field.flag


def test_another_engine_drops_the_embedded_models_file() -> None:
    model = load(flags={"models[].engine": "scripted"}, environ={}).settings.models[0]
    assert (model.name, model.engine, model.source) == ("scripted", "scripted", None)


def test_slots_of_upstreams_may_be_found(file: Path) -> None:
    upstream = '[[models]]\nname = "a"\nengine = "openai"\n[[models.replicas]]\nurl = "http://h"\n'
    file.write_text(upstream + 'slots = "auto"')
    (replica,) = load(file, environ={}).settings.models[0].replicas
    assert replica.slots == "auto"
    file.write_text(upstream)
    for slots, said in (("auto", "auto"), ("7", 7)):
        model = load(file, flags={"models[].slots": slots}, environ={}).settings.models[0]
        assert model.slots == said


def test_a_setting_with_several_values_takes_one_text_a_list_or_commas(file: Path) -> None:
    file.write_text('[server]\napi_key = "one"\ncors_origin = ["a", "b"]\n')
    assert load(file, environ={}).settings.server.api_key == ("one",)
    assert load(file, environ={}).settings.server.cors_origin == ("a", "b")
    environ = {"HEADRACE_SERVER_API_KEY": "one, two"}
    assert load(environ=environ).settings.server.api_key == ("one", "two")
    flags = {"server.api_key": ("one", "two")}
    assert load(flags=flags, environ={}).settings.server.api_key == ("one", "two")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[server]\nprot = 1", "server.prot: no such setting (did you mean port?)"),
        ("servr = 1", "servr: no such setting (did you mean server?)"),
        ("server = 1", "server: must be a table, not an integer (FILE)"),
        ('[server]\nport = "80"', "server.port: must be an integer, not a text (FILE)"),
        ("[server]\nport = 99999", "server.port: must be an integer ≤ 65535 (FILE)"),
        (
            '[scheduling]\noptions = { headroom = "x" }',
            'scheduling.options.headroom: must be a number, not "x"',
        ),
        ("[limits]\nqueue_timeout_s = 0", "limits.queue_timeout_s: must be a number > 0 (FILE)"),
        (
            '[[models]]\nname = "a"\nsource = "file:a"\nslots = 0',
            "models[0].slots: must be an integer ≥ 1 (FILE)",
        ),
        (
            '[[models]]\nname = "a"\nsource = "file:a"\nslots = "auto"',
            "models[0].slots: only upstreams of the engine openai have `auto`",
        ),
        (
            '[[models]]\nname = "a"\nsource = "file:a"\nslots = "many"',
            "models[0].slots: must be an integer or auto (FILE)",
        ),
        (
            '[[models]]\nname = "a"\nsource = "file:a"\n[models.defaults]\ntop_p = 7',
            "models[0].defaults.top_p: must be a number ≤ 1 (FILE)",
        ),
        (
            '[[models]]\nname = "a"\nengine = "vllm"',
            "models[0].engine: must be one of llama, openai, genai, onnx, scripted (FILE)",
        ),
        ("[[models]]\nslots = 1", "models[0].name: must be set"),
        ('[models]\nname = "a"', "models: must be a list, not a table"),
        ('[[models]]\nname = "a"', "models[0].source: must be set for the engine llama"),
        (
            '[[models]]\nname = "a"\nengine = "openai"',
            "models[0].replicas: the engine openai needs at least one",
        ),
        (
            '[[models]]\nname = "a"\nsource = "file:a"\n[models.embedding]\npooling = "cls"',
            "models[0].embedding.enabled: must be true, or the rest means nothing",
        ),
        (
            '[[models]]\nname = "a"\nsource = "file:a"\n[models.embedding]\nenabled = true\noutput = "x"',
            "models[0].embedding.output: the file of a llama has its own",
        ),
        (
            UPSTREAM + "[models.embedding]\nenabled = true",
            "models[0].embedding.enabled: an upstream's embeddings are passed on; leave it out",
        ),
        (UPSTREAM + UPSTREAM, "models[1]: up is also a name of models[0]"),
        (
            '[[tenants]]\nname = "a"\nkeys = [3]',
            "tenants[0].keys[0]: must be a text, not an integer",
        ),
        (
            '[server]\napi_key = "k"\n[[tenants]]\nname = "a"\nkeys = ["k"]',
            "tenants[0].keys[0]: is also server.api_key",
        ),
        ('[server]\napi_key = ""', "server.api_key[0]: must not be empty"),
        ('[server]\nssl_keyfile = "x"', "server.ssl_certfile: must be set when ssl_keyfile is"),
        ('[server]\nssl_certfile = "/no/x"', "server.ssl_certfile: there is no file /no/x"),
        ('[server]\nssl_client_ca = "x"', "server.ssl_certfile: must be set when ssl_client_ca is"),
        (
            '[server]\nssl_client_auth = "required"',
            "server.ssl_client_ca: must be set when ssl_client_auth is",
        ),
        (
            '[[tenants]]\nname = "a"\ncertificates = "spiffe://a.test/*"',
            "tenants[0].certificates: server.ssl_client_ca must be set",
        ),
        (
            '[[tenants]]\nname = "a"\nscopes = ["infer", "root"]',
            "tenants[0].scopes[1]: must be one of infer, admin, metrics",
        ),
        (
            '[[tenants]]\nname = "a"\nscopes = []',
            "tenants[0].scopes: must be a list of length ≥ 1 (FILE)",
        ),
        ('[[tenants]]\nname = "a"\n[[tenants]]\nname = "a"', "tenants[1].name: a comes twice"),
        ('[[tenants]]\nname = "a"\nweight = -1', "tenants[0].weight: must be a number ≥ 0 (FILE)"),
        (
            '[[tenants]]\nname = "a"\nlevel = "vip"',
            "tenants[0].level: must be one of interactive, standard, batch (FILE)",
        ),
    ],
)
def test_a_mistake_in_the_file_names_the_key(text: str, line: str, file: Path) -> None:
    assert refusal(text, file) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            'certificates = ["spiffe://a.test/x", "a.test"]',
            ".certificates[1]: is not possible. SPIFFE",
        ),
        ('certificates = ["spiffe://a.test"]', ".certificates[0]: is not possible. SPIFFE"),
        ('keys = ["a\\u0000b", 1]', ".keys[1]: must be a text"),
    ],
)
def test_what_a_tenant_cannot_have_is_named(text: str, line: str, file: Path) -> None:
    said = refusal(f'[[tenants]]\nname = "a"\n{text}', file)
    assert said.startswith(f"tenants[0]{line}")
    assert refusal('[[tenants]]\nname = "a b"', file).startswith(
        "tenants[0].name: is not possible."
    )


def test_a_file_that_is_no_toml_or_not_there_is_one_line(file: Path, tmp_path: Path) -> None:
    assert refusal("port == 3", file).startswith("FILE: is not TOML: ")
    with pytest.raises(SettingsError, match="No such file"):
        load(tmp_path / "nowhere.toml", environ={})


def test_an_impossible_value_names_the_flag_or_the_variable_that_had_it(file: Path) -> None:
    assert refusal("", file, {"models[].slots": "0"}) == (
        "models[0].slots: must be an integer ≥ 1 (--model-slots)"
    )
    assert refusal("", file, HEADRACE_SERVER_PORT="x") == (
        "server.port: must be an integer, not a text (HEADRACE_SERVER_PORT)"
    )


def test_an_unknown_variable_of_a_section_is_refused(file: Path) -> None:
    assert refusal("", file, HEADRACE_SERVER_HOST="") == (
        "server.host: must not be empty (HEADRACE_SERVER_HOST)"
    )
    assert refusal("", file, HEADRACE_SERVER_PROT="1") == (
        "HEADRACE_SERVER_PROT: no such setting (did you mean HEADRACE_SERVER_PORT?)"
    )


def test_other_variables_of_ours_are_left_alone() -> None:
    assert load(environ={"HEADRACE_ENGINE_OF": "1234"}).settings == Settings()


def test_listening_for_other_machines_needs_a_key_or_a_word(file: Path) -> None:
    def opened(text: str, *, created_keys: bool = False) -> None:
        file.write_text(text)
        check_open(load(file, environ={}).settings, created_keys=created_keys)

    with pytest.raises(SettingsError, match=r"^server\.host: 0\.0\.0\.0 lets other"):
        opened('[server]\nhost = "0.0.0.0"')
    with pytest.raises(SettingsError, match=r"^server\.host: "):
        opened('[server]\nhost = "example.org"')
    with pytest.raises(SettingsError, match=r"^server\.host: "):
        opened('[server]\nhost = "::"\n[[tenants]]\nname = "a"\n')
    for more in ('api_key = "k"', "allow_open = true", 'uds = "/tmp/s"'):
        opened(f'[server]\nhost = "0.0.0.0"\n{more}\n')
    opened('[server]\nhost = "0.0.0.0"\n', created_keys=True)
    opened('[server]\nhost = "::"\n[[tenants]]\nname = "a"\nkeys = ["k"]\n')


@pytest.mark.parametrize("key", [" ", "secret\\n", " secret", "schlüssel", "a\\u0000b"])
def test_a_key_that_no_header_carries_is_refused_by_its_path(file: Path, key: str) -> None:
    file.write_text(f'[server]\napi_key = ["good one", "{key}"]\n')
    with pytest.raises(
        SettingsError, match=r"^server\.api_key\[1\]: must be visible ASCII"
    ) as told:
        load(file, environ={})
    assert "secret" not in str(told.value)
    file.write_text(f'[[tenants]]\nname = "a"\nkeys = "{key}"\n')
    with pytest.raises(SettingsError, match=r"^tenants\[0\]\.keys\[0\]: must be visible ASCII"):
        load(file, environ={})


def test_a_secret_is_taken_from_the_environment_and_its_absence_is_an_error(file: Path) -> None:
    text = UPSTREAM + 'api_key = "env:UPSTREAM_KEY"\n'
    file.write_text(text)
    loaded = load(file, environ={"UPSTREAM_KEY": "s3cret"})
    assert loaded.settings.models[0].replicas[0].api_key == "s3cret"
    assert loaded.written == {"models[0].replicas[0].api_key": "env:UPSTREAM_KEY"}
    assert refusal(text, file) == (
        "models[0].replicas[0].api_key: the environment has no UPSTREAM_KEY"
    )


def test_a_hooks_own_keys_stand_beside_ours(file: Path) -> None:
    file.write_text('[[hooks]]\nclass = "a.b:C"\npatterns = ["x"]\n[hooks.deep]\ny = 1\n')
    hook = load(file, environ={}).settings.hooks[0]
    assert (hook.class_, hook.on_error) == ("a.b:C", "fail")
    assert hook.options == {"patterns": ["x"], "deep": {"y": 1}}


def test_naming_another_file_drops_the_embedded_models_checksum_format_and_name() -> None:
    model = load(flags={"models[].source": "file:/x/Other.Q8_0.gguf"}, environ={}).settings.models[
        0
    ]
    assert (model.name, model.sha256, model.format) == ("Other.Q8_0", None, "keep")
    flags = {
        "models[].source": "file:/x/o.gguf",
        "models[].name": "mine",
        "models[].format": "q8_0",
    }
    model = load(flags=flags, environ={}).settings.models[0]
    assert (model.name, model.sha256, model.format) == ("mine", None, "q8_0")


def test_changing_the_embedded_model_keeps_what_was_not_said() -> None:
    model = load(flags={"models[].slots": "2"}, environ={}).settings.models[0]
    assert model == msgspec.structs.replace(EMBEDDED, slots=2)


def test_flags_for_one_model_are_refused_where_the_file_has_several(file: Path) -> None:
    text = UPSTREAM + UPSTREAM.replace('"up"', '"down"')
    assert refusal(text, file, {"models[].slots": "2"}) == (
        "models: --model-slots is for one model, the file has 2"
    )


def test_the_folders_follow_the_systems_customs(tmp_path: Path) -> None:
    settings = load(environ={"XDG_STATE_HOME": str(tmp_path), "XDG_CACHE_HOME": "/c"}).settings
    assert settings.state_path == tmp_path / "headrace"
    assert settings.cache_path == Path("/c/headrace")
    assert settings.database_path == tmp_path / "headrace" / "headrace.db"


@pytest.mark.parametrize(
    ("url", "path"),
    [("memory:", None), ("sqlite:/a/b.db", "/a/b.db"), ("sqlite:///a/b.db", "/a/b.db")],
)
def test_the_stores_url_names_its_file(url: str, path: str | None) -> None:
    settings = load(flags={"store.url": url}, environ={}).settings
    assert settings.database_path == (Path(path) if path else None)
