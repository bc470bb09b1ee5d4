#!/usr/bin/env bash
# `make bench PART=patch`: 100 MB taken from a local file (copied, verified), staged, synced, read again and swapped by the agent's helper, without
# service stop and health gate; beside it in the same run `rauc extract` and `swupdate` of the same content, each followed by a sync. Then once
# more, not timed: the syncs of one patch, and the room that it takes on the disk beside the file.
# BENCH_RUNS (5) per row, in turns; BENCH_MB (100) of content. Root; everything lies in a folder of its own that is removed. Results also in
# .bench/patch.txt.
# Exit codes: 0 measured, 69 set-up impossible.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo 'bench: the helper runs as root only' >&2; exit 69; }
scripts/setup.sh build patch-peers || exit 69
scripts/build.sh agent
cargo build --release --locked -p mainstay-release
mkdir -p .bench
dir=$(mktemp -d "${TMPDIR:-/var/tmp}/mainstay-bench.XXXXXX")
helper=0
trap 'kill $helper 2>/dev/null || true; rm -rf "$dir"' EXIT
release=$PWD/target/release/mainstay-release agent=$PWD/target/agent/mainstay-agent runs=${BENCH_RUNS:-5} half=$((${BENCH_MB:-100} * 500000))

mkdir -p "$dir"/{tree,tar,product/releases/1.0.0-shipped,repository}
{ head -c "$half" /dev/urandom; find /usr/lib /usr/bin -type f -size +100k -print0 | sort -z | xargs -0 cat 2>/dev/null | head -c "$half" || true; } >"$dir/image"
split -a 4 -b 1000000 "$dir/image" "$dir/tree/part"
ln -s releases/1.0.0-shipped "$dir/product/current"

results=$PWD/.bench/patch.txt
cd "$dir"
for signer in a b online; do
  head -c 18 /dev/urandom | base64 >$signer.pass
  "$release" keys new --out $signer.key --name $signer --passphrase-file $signer.pass
done >log 2>&1
sign() { # BUNDLE
  for signer in a b; do "$release" sign "$1" --key $signer.key --passphrase-file $signer.pass --yes; done
  "$release" publish "$1" --repository repository
}
"$release" init --repository repository --key a.key.pub --key b.key.pub --threshold 2 --product bench --online online.key.pub \
  --out first.bundle >>log 2>&1
sign first.bundle >>log 2>&1
for run in $(seq $((runs + 1))); do
  printf 'product = "bench"\nversion = "1.%s.0"\ntitle = { zh = "测量", en = "Bench" }\n[patch]\nas = "tree"\nfrom = ">=1.0.0"\ndata_change = "none"\nhealth = { consecutive_ok = 1, deadline_s = 60 }\n' "$run" >patch.toml
  "$release" build --kind patch patch.toml --dir tree --repository repository --out "$run.bundle" >>log 2>&1
  sign "$run.bundle" >>log 2>&1
done
cat >helper.toml <<TOML
product = "bench"
hardware = "any"
version = "1.0.0"
root = "$dir/repository/metadata/1.root.json"
state_dir = "$dir/state"
tree = "$dir/product"
socket = "$dir/helper.sock"
reporter = "nobody"
TOML
chmod 644 helper.toml
"$agent" --helper-config "$dir/helper.toml" helper 2>helper.log &
helper=$!
until [ -S helper.sock ]; do sleep 0.1; done

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k.pem -out c.pem -days 30 -subj /CN=bench -addext basicConstraints=critical,CA:TRUE 2>/dev/null
mkdir rauc
cp image rauc/rootfs.img
printf '[update]\ncompatible=bench\nversion=2\n[bundle]\nformat=plain\n[image.rootfs]\nfilename=rootfs.img\n' >rauc/manifest.raucm
rauc --cert=c.pem --key=k.pem bundle rauc bundle.raucb >>log 2>&1

mkdir swupdate
ln image swupdate/image
openssl req -x509 -newkey rsa:2048 -nodes -keyout sk.pem -out sc.pem -days 30 -subj /CN=bench -addext extendedKeyUsage=codeSigning,emailProtection 2>/dev/null
( cd swupdate
  printf 'software = { version = "2.0.0"; hardware-compatibility = ["1.0"]; files: ( { filename = "image"; path = "%s"; sha256 = "%s"; } ); }\n' \
    "$dir/swupdated" "$(sha256sum image | cut -d' ' -f1)" >sw-description
  openssl cms -sign -in sw-description -out sw-description.sig -signer ../sc.pem -inkey ../sk.pem -outform DER -nosmimecap -binary
  printf 'sw-description\nsw-description.sig\nimage\n' | cpio -o -H crc >../update.swu ) 2>>log

/usr/bin/python3 - "$dir" "$runs" "$helper" <<'PYTHON' | tee "$results"
import json, os, platform, re, socket, statistics, subprocess, sys, threading, time
top, runs, helper = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def ask(request, path=None):
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(top + "/helper.sock")
        data = json.dumps(request).encode() + b"\n"
        if path:
            with open(path, "rb") as file:
                socket.send_fds(line, [data], [file.fileno()])
        else:
            line.sendall(data)
        answers = line.makefile()
        while True:
            answer = json.loads(answers.readline())
            if answer["answer"] != "progress":
                return answer["with"]
def ours(run):
    path = f"{top}/repository/files/bench-1.{run}.0.mpatch"
    began = time.monotonic()
    file = ask({"verb": "take", "offer_id": None}, path)
    taken = time.monotonic()
    ask({"verb": "consent", "sha256": file["sha256"], "code": None})
    file = ask({"verb": "proceed", "sha256": file["sha256"], "now": True, "services": {}})
    ended = time.monotonic()
    assert file["step"] in ("probation", "done"), file
    while file["step"] == "probation":
        file = ask({"verb": "health", "services": {}})
    assert file["step"] == "done", file
    return ended - began, taken - began
def rauc(_):
    subprocess.run(["rm", "-rf", top + "/out"], check=True)
    began = time.monotonic()
    subprocess.run(["rauc", f"--keyring={top}/c.pem", "extract", top + "/bundle.raucb", top + "/out"], check=True, capture_output=True)
    subprocess.run(["sync", "-f", top + "/out"], check=True)
    return (time.monotonic() - began,)
def swupdate(_):
    subprocess.run(["rm", "-f", top + "/swupdated"], check=True)
    began = time.monotonic()
    subprocess.run(["swupdate", "-k", top + "/sc.pem", "-H", "bench:1.0", "-i", top + "/update.swu"], check=True, capture_output=True)
    subprocess.run(["sync", "-f", top], check=True)
    return (time.monotonic() - began,)
def copy(_):
    began = time.monotonic()
    subprocess.run(["dd", f"if={top}/image", f"of={top}/copy", "bs=1M", "conv=fsync"], check=True, capture_output=True)
    return (time.monotonic() - began,)
seen = {"helper": [], "rauc": [], "swupdate": [], "copy": []}
for run in range(1, runs + 1):
    for name, measure in (("helper", ours), ("rauc", rauc), ("swupdate", swupdate), ("copy", copy)):
        os.sync()
        seen[name].append(measure(run))
peak = int(re.search(r"VmHWM:\s+(\d+)", open(f"/proc/{helper}/status").read())[1]) / 1024
size = os.path.getsize(top + "/image")
def room():
    found = os.statvfs(top)
    return found.f_bfree * found.f_frsize
# One more under strace, for its syncs; its room is looked at all the while.
subprocess.run(["sync", "-f", top], check=True)
tracer = subprocess.Popen(["strace", "-f", "-qq", "-e", "signal=none", "-e", "trace=fsync,fdatasync,syncfs", "-o", top + "/syncs", "-p", str(helper)])
while int(re.search(r"TracerPid:\s+(\d+)", open(f"/proc/{helper}/status").read())[1]) == 0:
    time.sleep(0.01)
free, least, watching = room(), [room()], True
def watch():
    while watching:
        least[0] = min(least[0], room())
        time.sleep(0.002)
watcher = threading.Thread(target=watch)
watcher.start()
ours(runs + 1)
watching = False
watcher.join()
tracer.terminate()
tracer.wait()
syncs = re.findall(r"(fsync|fdatasync|syncfs)\(", open(top + "/syncs").read())
middle = lambda rows, at=0: statistics.median(row[at] for row in rows)
print(f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, {runs} runs in turns, medians")
print(f"helper: take (copy, verify) to swapped, {size / 1e6:.0f} MB tree   {middle(seen['helper']):.3f} s, of it taking {middle(seen['helper'], 1):.3f} s; peak {peak:.1f} MiB")
print(f"rauc extract + sync, {size / 1e6:.0f} MB image                     {middle(seen['rauc']):.3f} s")
print(f"swupdate + sync, {size / 1e6:.0f} MB image                         {middle(seen['swupdate']):.3f} s")
print(f"copy + fsync, {size / 1e6:.0f} MB                                  {middle(seen['copy']):.3f} s")
print("syncs of one patch, taking to done: " + ", ".join(f"{syncs.count(call)} {call}" for call in ("fsync", "fdatasync", "syncfs")))
print(f"room on the disk at most, beside the file of {os.path.getsize(f'{top}/repository/files/bench-1.{runs + 1}.0.mpatch') / 1e6:.0f} MB: {(free - least[0]) / 1e6:.0f} MB")
print(f"helper / rauc = {middle(seen['helper']) / middle(seen['rauc']):.2f}, helper / swupdate = {middle(seen['helper']) / middle(seen['swupdate']):.2f}")
PYTHON
