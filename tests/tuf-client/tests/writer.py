"""python-tuf as the writer of repositories, good and bad, that our client must take or refuse.

Usage: writer.py CLIENT. Each case is a function; prints its name when it holds. Exit 0, or 1 with what did not.
"""
import datetime
import http.server
import pathlib
import subprocess
import sys
import tempfile
import threading
import traceback
from urllib import parse

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Delegations, Key, Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

CLIENT = sys.argv[1]
FAR = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0) + datetime.timedelta(days=30)
PAST = FAR - datetime.timedelta(days=60)
TOP = ["root", "targets", "snapshot", "timestamp"]


class Repository:
    """Roles in memory, signed when they are asked for; a client with a store of its own."""

    def __init__(self, make=CryptoSigner.generate_ed25519):
        self.make = make
        self.signers = {role: [make()] for role in TOP}
        self.root = Root(1, None, FAR, {}, None, True)
        self.targets = Targets(1, None, FAR, {}, None)
        self.snapshot = Snapshot(1, None, FAR, {"targets.json": MetaFile(1)})
        self.timestamp = Timestamp(1, None, FAR, MetaFile(1))
        self.delegated = {}
        self.artifacts = {}
        self.roots = []
        self.asked = []
        for role in TOP:
            self.root.add_key(self.signers[role][0].public_key, role)
        self.publish_root()
        self.folder = pathlib.Path(tempfile.mkdtemp())
        (self.folder / "root.json").write_bytes(self.roots[0])
        repository = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = repository.answer(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        assert self.client("init", self.folder / "root.json") == 0

    def sign(self, role, text):
        metadata = Metadata(text)
        for signer in self.signers[role]:
            metadata.sign(signer, append=True)
        return metadata.to_bytes()

    def publish_root(self):
        if self.roots:
            self.root.version += 1
        self.roots.append(self.sign("root", self.root))

    def rotate(self, role):
        for signer in self.signers[role]:
            self.root.revoke_key(signer.public_key.keyid, role)
        self.signers[role] = [self.make()]
        self.root.add_key(self.signers[role][0].public_key, role)

    def publish(self):
        """The next snapshot and timestamp over what stands."""
        self.snapshot.meta["targets.json"] = MetaFile(self.targets.version)
        for name, text in self.delegated.items():
            self.snapshot.meta[f"{name}.json"] = MetaFile(text.version)
        self.snapshot.version += 1
        self.stamp()

    def stamp(self):
        self.timestamp.snapshot_meta = MetaFile(self.snapshot.version)
        self.timestamp.version += 1

    def delegate(self, name, paths, text=None, delegator=None, terminating=False):
        delegator = delegator or self.targets
        signer = self.signers.setdefault(name, [self.make()])[0]
        if delegator.delegations is None:
            delegator.delegations = Delegations({}, {})
        delegator.delegations.roles[name] = DelegatedRole(name, [], 1, terminating, paths)
        delegator.add_key(signer.public_key, name)
        self.delegated.setdefault(name, text or Targets(1, None, FAR, {}, None))
        return self.delegated[name]

    def add(self, text, path, content):
        text.targets[path] = TargetFile.from_data(path, content, ["sha256"])
        self.artifacts[path] = content

    def answer(self, path):
        kind, name = path.lstrip("/").split("/", 1)
        if kind == "targets":
            folder, _, last = name.rpartition("/")
            return self.artifacts.get(f"{folder}/{last.split('.', 1)[1]}".lstrip("/"))
        stem = parse.unquote(name.removesuffix(".json"))
        if stem == "timestamp":
            self.asked.append("timestamp")
            return self.sign("timestamp", self.timestamp)
        version, role = stem.split(".", 1)
        if role == "root":
            number = int(version)
            return self.roots[number - 1] if number <= len(self.roots) else None
        self.asked.append(name.split(".", 1)[1].removesuffix(".json"))
        if role == "snapshot":
            return self.sign("snapshot", self.snapshot)
        return self.sign(role, self.targets if role == "targets" else self.delegated[role])

    def client(self, *arguments):
        command = [CLIENT, "--metadata-dir", str(self.folder / "store"), "--metadata-url", f"{self.url}/metadata"]
        return subprocess.run([*command, *map(str, arguments)], stderr=subprocess.DEVNULL, check=False, timeout=60).returncode

    def refresh(self):
        return self.client("refresh")

    def download(self, path):
        self.asked.clear()
        out = self.folder / "out"
        return self.client("--target-name", path, "--target-dir", out, "--target-base-url", f"{self.url}/targets/", "download")

    def version(self, role):
        path = self.folder / "store" / f"{role}.json"
        return Metadata.from_file(str(path)).signed.version if path.exists() else None


def case_key_types():
    for make in (CryptoSigner.generate_ed25519, CryptoSigner.generate_ecdsa, CryptoSigner.generate_rsa):
        repository = Repository(make)
        assert repository.refresh() == 0, make.__name__
        assert repository.version("targets") == 1


def case_one_key_under_many_ids():
    repository = Repository()
    signer = repository.signers["snapshot"][0]
    for number in range(5):
        alias = Key.from_dict(f"{number:064}", signer.public_key.to_dict())
        repository.root.add_key(alias, "snapshot")
        repository.signers["snapshot"].append(CryptoSigner(signer._private_key, alias))
    repository.root.roles["snapshot"].threshold = 3
    repository.publish_root()
    assert repository.refresh() == 1
    repository.root.roles["snapshot"].threshold = 1
    repository.publish_root()
    assert repository.refresh() == 0


def case_a_root_is_kept_before_its_date_is_judged():
    repository = Repository()
    assert repository.refresh() == 0
    repository.root.expires = PAST
    repository.publish_root()
    repository.publish()
    assert repository.refresh() == 1
    assert (repository.version("root"), repository.version("timestamp")) == (2, 1)


def case_expired():
    for role in ("timestamp", "snapshot", "targets"):
        repository = Repository()
        getattr(repository, role).expires = PAST
        assert repository.refresh() == 1, role
        assert repository.version(role) is None


def case_rollback():
    repository = Repository()
    repository.publish()
    repository.publish()
    assert repository.refresh() == 0
    repository.timestamp.version -= 1
    assert repository.refresh() == 1
    repository.timestamp.version += 1
    repository.snapshot.version = 1
    repository.stamp()
    assert repository.refresh() == 1
    assert (repository.version("timestamp"), repository.version("snapshot")) == (3, 3)


def case_targets_rollback():
    repository = Repository()
    repository.targets.version = 5
    repository.publish()
    assert repository.refresh() == 0
    repository.targets.version = 4
    repository.publish()
    assert repository.refresh() == 1
    assert (repository.version("snapshot"), repository.version("targets")) == (2, 5)


def case_fast_forward_recovery():
    for rotated in (["timestamp"], ["snapshot"], ["snapshot", "timestamp"]):
        repository = Repository()
        if "timestamp" in rotated:
            repository.timestamp.version = 99_999
        if "snapshot" in rotated:
            repository.targets.version = 99_999
        if len(rotated) == 2:
            repository.snapshot.version = 99_999
        repository.publish()
        assert repository.refresh() == 0
        for role in rotated:
            repository.rotate(role)
        repository.publish_root()
        if "timestamp" in rotated:
            repository.timestamp.version = 1
        if "snapshot" in rotated:
            repository.targets.version = 1
        if len(rotated) == 2:
            repository.snapshot.version = 1
        repository.publish()
        assert repository.refresh() == 0, rotated
        assert repository.version("targets") == repository.targets.version


def case_same_version_other_content():
    repository = Repository()
    assert repository.refresh() == 0
    repository.timestamp.snapshot_meta.version = 100
    assert repository.refresh() == 0
    assert repository.version("snapshot") == 1


def case_order_of_delegations():
    repository = Repository()
    first = repository.delegate("A", ["*"])
    repository.delegate("B", ["*"])
    repository.delegate("C", ["*"], delegator=first)
    repository.delegate("D", ["*.doc"], delegator=first)
    repository.delegate("A", ["*"], delegator=repository.delegated["C"])
    repository.targets.version += 1
    repository.publish()
    assert repository.download("nothing") == 1
    assert repository.asked == ["timestamp", "snapshot", "targets", "A", "C", "B"], repository.asked
    first.delegations.roles["C"].terminating = True
    first.version += 1
    repository.publish()
    assert repository.download("nothing") == 1
    assert repository.asked == ["timestamp", "snapshot", "A"], repository.asked


def case_a_kept_role_must_satisfy_todays_delegator():
    repository = Repository()
    role = repository.delegate("A", ["a/*"])
    for name in ("a/first", "a/second"):
        repository.add(role, name, name.encode())
    repository.targets.version += 1
    repository.publish()
    assert repository.download("a/first") == 0
    key = repository.targets.delegations.roles["A"].keyids[0]
    repository.targets.revoke_key(key, "A")
    repository.targets.add_key(repository.make().public_key, "A")
    repository.targets.version += 1
    repository.publish()
    assert repository.download("a/second") == 1, "the role that is kept was signed by a key that nobody delegates to any more"


def case_a_role_must_satisfy_the_delegator_by_whom_it_is_reached():
    repository = Repository()
    repository.delegate("A", ["a/*"])
    repository.delegate("B", ["b/*"])
    role = repository.delegate("C", ["*/*"], delegator=repository.delegated["A"])
    for name in ("a/x", "b/x"):
        repository.add(role, name, name.encode())
    other = repository.delegated["B"]
    other.delegations = Delegations({}, {"C": DelegatedRole("C", [], 1, False, ["*/*"])})
    other.add_key(repository.make().public_key, "C")
    repository.targets.version += 1
    repository.publish()
    assert repository.download("a/x") == 0
    assert repository.download("b/x") == 1, "B's key did not sign it"


def case_odd_role_names():
    for name in ("?", "#", "/delegated", "../delegated"):
        repository = Repository()
        repository.delegate(name, ["*"])
        repository.targets.version += 1
        repository.publish()
        assert repository.download("nothing") == 1
        assert repository.asked[-1] == parse.quote(name, ""), repository.asked
        assert len([path for path in (repository.folder / "store").iterdir() if path.suffix == ".json"]) == 5


def case_targets_in_folders_and_swapped_ones():
    repository = Repository()
    role = repository.delegate("B", ["releases/*/*"])
    repository.add(role, "releases/x/x_v1", b"one")
    repository.add(repository.targets, "top", b"two")
    repository.targets.version += 1
    repository.publish()
    assert repository.download("releases/x/x_v1") == 0
    assert (repository.folder / "out/releases/x/x_v1").read_bytes() == b"one"
    repository.artifacts["top"] = b"six"
    assert repository.download("top") == 1
    repository.artifacts["top"] = b"two and more"
    assert repository.download("top") == 1
    assert not (repository.folder / "out/top").exists()


def main():
    failed = 0
    for name, case in list(globals().items()):
        if name.startswith("case_"):
            try:
                case()
                print(name)
            except Exception:
                failed += 1
                print(f"{name}: did not hold\n{traceback.format_exc()}", file=sys.stderr)
    sys.exit(1 if failed else 0)


main()
