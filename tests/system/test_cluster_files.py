"""The files of cluster/ (launchers, manifests, runtime environment, image), checked offline."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
LAUNCHERS = ("aws", "gcp", "onprem")
MANIFESTS = {"kuberay-raycluster": "rayclusters.yaml", "kuberay-rayjob": "rayjobs.yaml"}

# Ray's own reading of a launcher file, in a process of its own because it imports ray. It contacts no cloud.
CHECK = """
import json, sys
from ray.autoscaler._private.util import prepare_config, validate_config
found = {}
for name, config in json.load(sys.stdin).items():
    try:
        validate_config(prepare_config(config))
        found[name] = ""
    except BaseException as error:
        found[name] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())


def pinned(package: str) -> str:
    return re.search(rf"^{package}==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE).group(1)


# -------------------------------------------------------------------------------------------- launcher files


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Ray's complaint, or "", about every launcher file and about a damaged copy of each."""
    configs = {name: read(name) for name in LAUNCHERS}
    for name in LAUNCHERS:
        configs[f"{name}-misspelt"] = copy.deepcopy(configs[name]) | {"idle_timeout_minute": 5}
        configs[f"{name}-type"] = copy.deepcopy(configs[name]) | {"max_workers": "four"}
    environment = os.environ | {"HOME": str(tmp_path_factory.mktemp("home")), "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", CHECK],
        input=json.dumps(configs),
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", LAUNCHERS)
def test_ray_accepts_the_launcher_file_and_refuses_damaged_copies(
    name: str, verdicts: dict[str, str]
) -> None:
    assert verdicts[name] == ""
    assert "idle_timeout_minute" in verdicts[f"{name}-misspelt"]
    assert verdicts[f"{name}-type"] != ""


@pytest.mark.parametrize("name", LAUNCHERS)
def test_the_head_trains_nothing_and_is_not_open(name: str) -> None:
    config = read(name)
    (start,) = [command for command in config["head_start_ray_commands"] if "ray start" in command]
    assert "--num-cpus=0" in start
    assert "--dashboard-host=127.0.0.1" in start
    options = config.get("docker", {}).get("run_options", [start])
    assert any("RAY_AUTH_MODE=token" in option for option in options)
    assert [path for path in config["file_mounts"] if path.endswith("/.ray/auth_token")]


def test_only_ssh_is_open_on_aws_and_not_to_the_world() -> None:
    (rule,) = read("aws")["provider"]["security_group"]["IpPermissions"]
    assert (rule["FromPort"], rule["ToPort"], rule["IpProtocol"]) == (22, 22, "tcp")
    assert "0.0.0.0/0" not in [each["CidrIp"] for each in rule["IpRanges"]]


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_gpu_nodes_start_on_demand_and_end(name: str) -> None:
    config = read(name)
    workers = {
        kind: node
        for kind, node in config["available_node_types"].items()
        if kind != config["head_node_type"]
    }
    assert workers
    assert all(node["min_workers"] == 0 and node["max_workers"] > 0 for node in workers.values())
    assert 0 < config["idle_timeout_minutes"] <= 30


# ------------------------------------------------------------------------------------------------- manifests


def strict(schema: Any) -> Any:
    """A CRD's OpenAPI schema as JSON schema that refuses unknown fields."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string") is True:
        return {"type": ["integer", "string"]}
    result = {
        key: {name: strict(field) for name, field in value.items()} if key == "properties" else strict(value)
        for key, value in schema.items()
        if key not in ("description", "default", "format") and not key.startswith("x-kubernetes")
    }
    open_object = (
        "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields") is True
    )
    if "properties" in schema and not open_object:
        result["additionalProperties"] = False
    return result


def test_strict_schema_refuses_what_the_server_would_drop() -> None:
    number = {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}
    schema = strict({"type": "object", "properties": {"cpu": number}, "required": ["cpu"]})
    jsonschema.validate({"cpu": "4"}, schema)
    for wrong in ({"cpu": "4", "gpus": 1}, {"cpu": 1.5}, {}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


@pytest.mark.shared
@pytest.mark.parametrize(("name", "crd"), MANIFESTS.items())
def test_manifest_satisfies_the_crd(name: str, crd: str, shared_data: Path) -> None:
    path = shared_data / "kuberay" / crd
    if not path.is_file():
        pytest.skip(f"needs the CRD {path}, which is not there")
    definition = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (version,) = [v for v in definition["spec"]["versions"] if v["name"] == "v1"]
    checker = jsonschema.Draft202012Validator(strict(version["schema"]["openAPIV3Schema"]))
    manifest = read(name)
    assert [error.message for error in checker.iter_errors(manifest)] == []

    cluster = manifest["spec"].get("rayClusterSpec", manifest["spec"])
    cluster["workerGroupSpecs"][0]["maxReplica"] = 2
    cluster["headGroupSpec"]["serviceType"] = 3
    messages = " ".join(error.message for error in checker.iter_errors(manifest))
    assert "maxReplica" in messages
    assert "3 is not of type" in messages


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifest_says_what_matters(name: str) -> None:
    manifest = read(name)
    assert manifest["apiVersion"] == "ray.io/v1"
    cluster = manifest["spec"].get("rayClusterSpec", manifest["spec"])
    assert cluster["rayVersion"] == pinned("ray")
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    groups = cluster["workerGroupSpecs"]
    assert all(group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] for group in groups)
    pods = [group["template"]["spec"] for group in [cluster["headGroupSpec"], *groups]]
    assert all(pod["securityContext"]["runAsNonRoot"] is True for pod in pods)
    assert all(container["resources"]["limits"]["memory"] for pod in pods for container in pod["containers"])


def test_both_manifests_describe_the_same_cluster() -> None:
    assert read("kuberay-raycluster")["spec"] == read("kuberay-rayjob")["spec"]["rayClusterSpec"]


def test_rayjob_ends_its_cluster_and_runs_a_trainer() -> None:
    spec = read("kuberay-rayjob")["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert re.match(r"python /home/ray/sparseg/trainers/\w+\.py ", spec["entrypoint"])
    assert_strings(yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"])


# ----------------------------------------------------------------------------- runtime environment and image


def assert_strings(variables: dict[str, Any]) -> None:
    assert {name: value for name, value in variables.items() if not isinstance(value, str)} == {}


def test_runtime_env_variables_are_strings_and_find_the_package() -> None:
    environment = read("runtime_env")
    assert_strings(environment["env_vars"])
    assert (ROOT / environment["env_vars"]["PYTHONPATH"] / "sparseg" / "__init__.py").is_file()
    assert environment["env_vars"]["RAY_USAGE_STATS_ENABLED"] == "0"
    assert "working_dir" not in environment  # it comes from `ray job submit --working-dir .`


PACK = """
import sys
from pathlib import Path
import yaml
from ray._private.runtime_env.packaging import create_package
excludes = yaml.safe_load(Path("cluster/runtime_env.yaml").read_text())["excludes"]
create_package(".", Path(sys.argv[1]), include_gitignore=True, excludes=excludes)
"""


def test_uploads_are_small_and_leave_out_data_runs_and_environments(tmp_path: Path) -> None:
    """What `ray job submit --working-dir . --runtime-env cluster/runtime_env.yaml` would send."""
    clone = tmp_path / "clone"
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.split("\n")
    if not any(tracked):
        pytest.skip("needs a git clone, to know which files are the project's")
    for name in filter(None, tracked):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            (clone / name).write_bytes((ROOT / name).read_bytes())
    unwanted = (
        "data/a",
        "runs/r/state.pt",
        ".venv/lib/x.py",
        ".git/objects/p",
        "datasets/d",
        "sub/w.safetensors",
    )
    for name in (*unwanted, "trainers/set/train.arrow"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_bytes(b"x")
    package = tmp_path / "package.zip"
    subprocess.run([sys.executable, "-c", PACK, str(package)], cwd=clone, check=True, timeout=120)
    names = set(zipfile.ZipFile(package).namelist())
    assert {"platform/sparseg/train/loop.py", "trainers/voc.py", "search_spaces/mixture.py"} <= names
    assert [name for name in names if name.startswith(unwanted) or name.endswith(".arrow")] == []
    assert not [name for name in names if name.startswith((".git/", ".venv/", "data/", "runs/", "datasets/"))]
    assert package.stat().st_size < 5_000_000


def test_image_is_not_root_matches_the_pins_and_copies_what_exists() -> None:
    lines = (CLUSTER / "Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users
    assert all(user.isdigit() and int(user) > 0 for user in users)
    assert f"ARG RAY_IMAGE=rayproject/ray:{pinned('ray')}-py311" in lines
    copies = [line.split()[1:-1] for line in lines if line.startswith("COPY ")]
    copied = [word for words in copies for word in words if not word.startswith("--")]
    assert copied
    assert any(line.startswith("HEALTHCHECK ") for line in lines)
    # what hadolint asks for besides: a base with a tag, no ADD, pip without its cache and with pins
    assert not [line for line in lines if line.startswith("ADD ") or "sudo" in line or "apt-get" in line]
    installs = [line for line in lines if "pip install" in line and not line.startswith("#")]
    assert installs and all("--no-cache-dir -c constraints.txt" in line for line in installs)
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_ci_without_make_runs_what_make_runs() -> None:
    recipes = (ROOT / "Makefile").read_text().replace("$(PY)", "$PY").replace("$(JOBS)", "2")
    commands = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("$PY ")]
    assert len(commands) == 6
    assert [command for command in commands if command not in recipes] == []
