#!/usr/bin/env python3
"""Verifies an evidence bundle of HyperCode with nothing but Python's standard library. FORMAT.md says what is checked."""

import argparse
import base64
import binascii
import hashlib
import json
import os
import sys
import tarfile
import tempfile
import uuid
from datetime import datetime, timedelta, timezone

FAULTS_MAX = 100
EVENT_FAULTS = {"event_missing", "event_changed", "event_damaged", "event_misplaced", "head_changed", "log_truncated",
                "log_rewritten"}
FILE_FAULTS = {"file_changed", "key_missing"}
EVENT_FIELDS = {"position", "stream", "version", "kind", "schema", "eventId", "commandId", "ordinal", "tenant", "principal",
                "correlationId", "causationId", "traceparent", "recordedAt", "epoch", "payload", "hash"}
MANIFEST_FIELDS = {"format", "program", "exportedAt", "origin", "from", "to", "hash", "previous", "before", "checkpoints",
                   "beyond"}


def rank(kind):
    """What is reported first: the events, then the checkpoints, then files."""
    return 0 if kind in EVENT_FAULTS else 2 if kind in FILE_FAULTS else 1


class Unusable(Exception):
    """What was named is no bundle, or cannot be read."""


# --- Ed25519 (RFC 8032 §5.1) ---------------------------------------------------------------------------------------

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_OF_MINUS_1 = pow(2, (P - 1) // 4, P)


def point_of(encoded):
    """The point that 32 bytes encode, as (X, Y, Z, T); None if they encode none."""
    number = int.from_bytes(encoded, "little")
    sign, y = number >> 255, number & (2**255 - 1)
    if y >= P:
        return None
    u, v = (y * y - 1) % P, (D * y * y + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    if v * x * x % P == -u % P:
        x = x * SQRT_OF_MINUS_1 % P
    if v * x * x % P != u or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


def add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


BASE = point_of(bytes.fromhex("5866666666666666666666666666666666666666666666666666666666666666"))


def is_signed(key, message, signature):
    """Whether the 64 bytes are the signature of the message by the 32 bytes of the key."""
    public = point_of(key)
    s = int.from_bytes(signature[32:], "little")
    if len(signature) != 64 or public is None or s >= ORDER:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % ORDER
    minus = (-public[0] % P, public[1], 1, -public[3] % P)
    both = add(BASE, minus)
    result = (0, 1, 1, 0)
    for bit in range(252, -1, -1):
        result = add(result, result)
        pair = (s >> bit & 1, k >> bit & 1)
        if pair != (0, 0):
            result = add(result, both if pair == (1, 1) else BASE if pair == (1, 0) else minus)
    inverse = pow(result[2], P - 2, P)
    x, y = result[0] * inverse % P, result[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little") == signature[:32]


def base64_bytes(text):
    decoded = base64.b64decode(text, validate=True)
    if base64.b64encode(decoded).decode() != text:
        raise ValueError("not the usual base64")
    return decoded


class Key:
    """A public key: `<name>+<id>+<base64>`."""

    KIND = 1

    def __init__(self, text):
        self.text = text.strip()
        try:
            self.name, identifier, data = self.text.split("+", 2)
            data = base64_bytes(data)
            self.id = hashlib.sha256(self.name.encode() + b"\n" + data).digest()[:4]
            legal = data[0] == self.KIND and len(data) == 33 and self.id.hex() == identifier
        except (ValueError, IndexError, binascii.Error):
            legal = False
        if not legal:
            raise Unusable(f"`{text}` is no public key")
        self.key = data[1:]

    def has_signed(self, note):
        """Whether the note bears a signature of this key, and no bad one under its name."""
        own = [signature[4:] for name, signature in note.signatures if (name, signature[:4]) == (self.name, self.id)]
        return bool(own) and self.is_good(note.text.encode(), own[0])

    def is_good(self, text, signature):
        return is_signed(self.key, text, signature)


class WitnessKey(Key):
    """The public key of a witness, which signs when it has seen a checkpoint (C2SP tlog-cosignature)."""

    KIND = 4

    def is_good(self, text, signature):
        time = int.from_bytes(signature[:8], "big")
        return is_signed(self.key, f"cosignature/v1\ntime {time}\n".encode() + text, signature[8:])


# --- Checkpoints (C2SP signed-note and tlog-checkpoint) ------------------------------------------------------------


class Note:
    def __init__(self, text):
        """Raises ValueError for what is no signed checkpoint."""
        if any(character < " " and character != "\n" for character in text):
            raise ValueError("control characters")
        signed, separator, signatures = text.rpartition("\n\n")
        if not separator or not signatures.endswith("\n"):
            raise ValueError("it is no signed note")
        self.text = signed + "\n"
        self.signatures = [self.signature(line) for line in signatures[:-1].split("\n")]
        origin, size, root, *extensions = signed.split("\n")
        self.origin, self.size, self.root = origin, int(size), base64_bytes(root)
        if not origin or size != str(self.size) or self.size < 0 or len(self.root) != 32 or "" in extensions:
            raise ValueError("no origin, size and root stand")

    @staticmethod
    def signature(line):
        dash, name, data = line.split(" ")
        signature = base64_bytes(data)
        if dash != "\u2014" or not name or "+" in name or len(signature) < 5:
            raise ValueError("it is no signed note")
        return name, signature


def notes(text):
    """The notes of a file, each read by itself: a Note, or None for what is none."""

    def read(text):
        try:
            return Note(text)
        except (ValueError, binascii.Error):
            return None

    found, unsigned = [], ""
    for part in text.split("\n\n"):
        if not part.strip():
            continue
        part = part.strip("\n")
        if part.startswith("\u2014"):
            found.append(read(f"{unsigned}\n\n{part}\n"))
            unsigned = ""
        else:
            if unsigned:
                found.append(read(unsigned))
            unsigned = part
    if unsigned:
        found.append(read(unsigned))
    return found


# --- The tree (RFC 6962 §2.1) --------------------------------------------------------------------------------------


def node(left, right):
    return hashlib.sha256(b"\x01" + left + right).digest()


class Range:
    """A tree as the roots of its complete subtrees, the largest first."""

    def __init__(self, size, subtrees):
        if len(subtrees) != bin(size).count("1"):
            raise Unusable(f"`before` does not have the subtrees of {size} events")
        self.size, self.subtrees = size, list(subtrees)

    def push(self, leaf):
        carry = self.size
        while carry & 1:
            leaf = node(self.subtrees.pop(), leaf)
            carry >>= 1
        self.subtrees.append(leaf)
        self.size += 1

    def root(self):
        if not self.subtrees:
            return hashlib.sha256(b"").digest()
        root = self.subtrees[-1]
        for left in reversed(self.subtrees[:-1]):
            root = node(left, root)
        return root


def is_consistent(proof, new, new_root, old, old_root):
    """Whether the new tree begins with the old one (RFC 9162 §2.1.4.2)."""
    if old == new:
        return not proof and old_root == new_root
    if not 0 < old < new:
        return False
    if old & (old - 1) == 0:
        proof = [old_root] + proof
    if not proof:
        return False
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    first = second = proof[0]
    for hash_ in proof[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            first, second = node(hash_, first), node(hash_, second)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            second = node(second, hash_)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and first == old_root and second == new_root


def is_included(proof, size, root, index, leaf):
    """Whether the tree has the leaf at the index (RFC 9162 §2.1.3.2)."""
    if not 0 <= index < size:
        return False
    fn, sn, hash_ = index, size - 1, leaf
    for other in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            hash_ = node(other, hash_)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            hash_ = node(hash_, other)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and hash_ == root


# --- JSON ----------------------------------------------------------------------------------------------------------


def json_of(text):
    """What the JSON text says, in which no object has a field twice."""

    def unique(pairs):
        if len({name for name, _ in pairs}) != len(pairs):
            raise ValueError("a field stands there twice")
        return dict(pairs)

    return json.loads(text, object_pairs_hook=unique)


def with_fields(read, fields):
    """What was read, if it has these fields and no others: what is not hashed is no evidence."""
    if not isinstance(read, dict) or set(read) != fields:
        raise ValueError("it does not have the fields that it should")
    return read


def whole(number, bits=64):
    """The number, if it is a whole one of so many bits."""
    if type(number) is not int or number >> bits:
        raise ValueError(f"{number!r} is no number of {bits} bits")
    return number


# --- The chain -----------------------------------------------------------------------------------------------------

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def microseconds(text):
    if not text.endswith("Z"):
        raise ValueError("a time that is not UTC")
    return (datetime.fromisoformat(text[:-1] + "+00:00") - EPOCH) // timedelta(microseconds=1)


def chain_hash(previous, event):
    """The hash of the log up to the event, computed from what stands in it. Raises for an event that is not legal."""
    encoded = bytearray(b"\x01")

    def column(content):
        encoded.extend(len(content).to_bytes(4, "big") + content)

    def integer(number, bits=64):
        column(whole(number, bits).to_bytes(8, "big"))

    def optional(text):
        encoded.extend(b"\xff\xff\xff\xff") if text is None else column(text.encode())

    integer(event["position"])
    column(event["stream"].encode())
    integer(event["version"])
    column(event["kind"].encode())
    integer(event["schema"], 16)
    column(uuid.UUID(event["eventId"]).bytes)
    column(uuid.UUID(event["commandId"]).bytes)
    integer(event["ordinal"], 32)
    column(event["tenant"].encode())
    column(event["principal"].encode())
    optional(event["correlationId"])
    optional(event["causationId"])
    optional(event["traceparent"])
    column(microseconds(event["recordedAt"]).to_bytes(8, "big", signed=True))
    integer(event["epoch"])
    column(hashlib.sha256(event["payload"].encode()).digest())
    return hashlib.sha256(b"\x00" + previous + bytes(encoded)).digest()


def digest(text):
    hash_ = bytes.fromhex(text)
    if len(hash_) != 32 or len(text) != 64:
        raise ValueError("a hash does not have 32 bytes")
    return hash_


NOT_LEGAL = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, UnicodeError)


# --- Verification --------------------------------------------------------------------------------------------------


class Verifier:
    def __init__(self, directory, keys, against, witness=None):
        self.directory, self.faults, self.agreed, self.covered = directory, [], 0, 0
        try:
            manifest = with_fields(json_of(self.text("manifest.json")), MANIFEST_FIELDS)
            if whole(manifest["format"]) != 1:
                raise Unusable(f"its format {manifest['format']} is not 1")
            self.origin, self.first, self.last = manifest["origin"], whole(manifest["from"]), whole(manifest["to"])
            if not isinstance(self.origin, str):
                raise ValueError("`origin` is no text")
            if not 1 <= self.first <= self.last:
                raise Unusable(f"events {self.first} to {self.last}: expected positions from 1, in order")
            self.head, self.previous = digest(manifest["hash"]), digest(manifest["previous"])
            self.range = Range(self.first - 1, [digest(hash_) for hash_ in manifest["before"]])
            self.beyond = [digest(hash_) for hash_ in manifest["beyond"]]
            self.sizes = [whole(size) for size in manifest["checkpoints"]]
        except NOT_LEGAL as error:
            raise Unusable(f"`manifest.json` cannot be read: {error!r}") from error
        own = [Key(line) for line in self.text("keys.txt").splitlines() if line]
        self.keys = keys or own
        for key in self.keys:
            if key.name == self.origin and key.text not in {key.text for key in own}:
                self.fault("key_missing", 0, 0, f"the evidence does not name the key `{key.text}`")
        self.waiting, self.versions = [], {}
        self.admit_all(against, witness)

    def text(self, name):
        try:
            with open(os.path.join(self.directory, name), encoding="utf-8", newline="") as file:
                return file.read()
        except (OSError, UnicodeError) as error:
            raise Unusable(f"`{name}` cannot be read: {error}") from error

    def fault(self, kind, position, until, detail):
        if sum(rank(fault["kind"]) == rank(kind) for fault in self.faults) < FAULTS_MAX:
            self.faults.append({"kind": kind, "position": position, "until": until, "detail": detail})

    def admit_all(self, against, witness):
        own = notes(self.text("checkpoints.txt"))
        has_cosigned = os.path.isfile(os.path.join(self.directory, "cosigned.txt"))
        cosigned = notes(self.text("cosigned.txt")) if has_cosigned else []
        sizes = {note.size if note else 0 for note in own}
        missing = [(size, "in the manifest") for size in self.sizes if size not in sizes]
        kept = [(note, "in `checkpoints.txt`") for note in own] + [(note, "in `cosigned.txt`") for note in cosigned]
        sizes |= {note.size for note in cosigned if note}
        unwitnessed = []
        if witness and (any(cosigned) or not against) and not any(note and witness.has_signed(note) for note in cosigned):
            unwitnessed.append((self.last, "among what it brings"))
        for name, text in against:
            for note in notes(text):
                if note and note.size not in sizes:
                    missing.append((note.size, f"in `{name}`"))
                if note and witness and not witness.has_signed(note):
                    unwitnessed.append((note.size, f"in `{name}`"))
                kept.append((note, f"in `{name}`"))
        for size, place in missing:
            self.fault("checkpoint_missing", size, size, f"the checkpoint is only {place}")
        for size, place in unwitnessed:
            detail = f"it bears no good cosignature of the witness, {place}"
            self.fault("checkpoint_unwitnessed", size, size, detail)
        for note, place in kept:
            self.admit(note, place)
        self.waiting.sort(key=lambda kept: -kept[0].size)
        self.hold_to_checkpoints()

    def admit(self, note, place):
        if note is None:
            self.fault("checkpoint_malformed", 0, 0, f"what stands there is no signed checkpoint, {place}")
            return
        own = [key for key in self.keys if key.name == note.origin]
        if note.origin != self.origin or not own:
            expected = f"not of `{self.origin}`" if note.origin != self.origin else "of which no key is known"
            detail = f"it is of the log `{note.origin}`, {expected}, {place}"
            self.fault("checkpoint_foreign", note.size, note.size, detail)
        elif not any(key.has_signed(note) for key in own):
            detail = f"it bears no good signature of a known key, {place}"
            self.fault("checkpoint_forged", note.size, note.size, detail)
        else:
            self.waiting.append((note, place))

    def hold_to_checkpoints(self):
        size = self.range.size
        while self.waiting and self.waiting[-1][0].size <= size:
            note, place = self.waiting.pop()
            if note.size < size:
                detail = f"it is of {note.size} events, the first that is here is {size + 1}, {place}"
                self.fault("checkpoint_unchecked", note.size, note.size, detail)
            elif note.root == self.range.root():
                self.agreed, self.covered = self.agreed + 1, size
            else:
                self.rewritten(size, place)

    def rewritten(self, size, place):
        detail = f"the first {size} events are not those that were signed, {place}"
        self.fault("log_rewritten", self.covered + 1, size, detail)

    def run(self):
        if self.read_events():
            self.check_end()
        self.check_files()
        self.faults.sort(key=lambda fault: rank(fault["kind"]))

    def read_events(self):
        """Checks event by event; False if nothing after one can be checked."""
        with open(os.path.join(self.directory, "events.jsonl"), "rb") as file:
            for line in file:
                expected = self.range.size + 1
                try:
                    event = with_fields(json_of(line.decode()), EVENT_FIELDS)
                    position, hash_ = event["position"], digest(event["hash"])
                    stream, version = event["stream"], event["version"]
                    computed = chain_hash(self.previous, event) if position == expected else None
                except NOT_LEGAL as error:
                    self.fault("event_damaged", expected, expected, f"it cannot be read: {error!r}")
                    return False
                if position != expected:
                    until = position - 1 if position > expected else expected
                    detail = f"position {position} stands where {expected} should"
                    self.fault("event_missing", expected, until, detail)
                    return False
                if computed != hash_:
                    detail = f"{event['kind']} of `{event['stream']}` does not match its hash"
                    self.fault("event_changed", expected, expected, detail)
                    known = self.versions.get(stream, None if self.first > 1 else 0)
                    version = None if known is None else known + 1
                elif version != (follows := self.versions.get(stream, version - 1 if self.first > 1 else 0) + 1):
                    detail = f"it is version {version} of `{stream}`, where {follows} should follow"
                    self.fault("event_misplaced", expected, expected, detail)
                if version is not None:
                    self.versions[stream] = version
                self.previous = hash_
                self.range.push(hash_)
                self.hold_to_checkpoints()
        return True

    def check_end(self):
        size, root = self.range.size, self.range.root()
        if (size, self.previous) != (self.last, self.head):
            low, high = min(size, self.last), max(size, self.last)
            named, found = f"position {self.last}", f"position {size}"
            if low == high:
                named, found = f"hash {self.head.hex()}", f"hash {self.previous.hex()}"
            detail = f"the manifest names {named}, the last event has {found}"
            self.fault("head_changed", low + (low < high), high, detail)
        while self.waiting:
            note, place = self.waiting.pop()
            if size == self.last and [note.size] == self.sizes[-1:]:
                if is_consistent(self.beyond, note.size, note.root, size, root):
                    self.agreed, self.covered = self.agreed + 1, size
                else:
                    self.rewritten(size, place)
            else:
                detail = f"{note.size} events were signed, {size} are there, {place}"
                self.fault("log_truncated", size + 1, note.size, detail)
        if self.covered < size and self.first <= size:
            first = max(self.first, self.covered + 1)
            self.fault("log_unsigned", first, size, "no checkpoint that agrees with the log covers them")

    def check_files(self):
        expected = dict(reversed(line.split("  ", 1)) for line in self.text("SHA256SUMS").splitlines() if "  " in line)
        changed = {name for name in ("checkpoints.txt", "events.jsonl", "keys.txt", "manifest.json") if name not in expected}
        for name, checksum in expected.items():
            try:
                sum_ = hashlib.sha256()
                with open(os.path.join(self.directory, os.path.basename(name)), "rb") as file:
                    for block in iter(lambda: file.read(1 << 20), b""):
                        sum_.update(block)
                if sum_.hexdigest() != checksum or "/" in name:
                    changed.add(name)
            except OSError:
                changed.add(name)
        for name in sorted(changed):
            self.fault("file_changed", 0, 0, f"`{name}` does not have the checksum that `SHA256SUMS` names")


# --- The proof of one event (C2SP tlog-proof) ----------------------------------------------------------------------


def check_proof(text, keys):
    """The event that the proof proves, and the size of the tree; raises Unusable if it proves nothing."""
    try:
        proof, checkpoint = text.split("\n\n", 1)
        opening, extra, index, *hashes = proof.split("\n")
        extra = with_fields(json_of(base64.b64decode(extra.split(" ", 1)[1])), {"event", "previous"})
        event, note = with_fields(extra["event"], EVENT_FIELDS), Note(checkpoint)
        leaf, computed = digest(event["hash"]), chain_hash(digest(extra["previous"]), event)
        hashes = [base64_bytes(hash_) for hash_ in hashes]
        legal = opening == "c2sp.org/tlog-proof@v1" and index == f"index {event['position'] - 1}"
    except (*NOT_LEGAL, IndexError, binascii.Error) as error:
        raise Unusable(f"it is no proof: {error!r}") from error
    if not legal:
        raise Unusable("it is no proof of the event that it holds")
    if computed != leaf:
        raise Unusable(f"the event at position {event['position']} does not match its hash")
    if not is_included(hashes, note.size, note.root, event["position"] - 1, leaf):
        raise Unusable(f"its hashes do not lead from the event at position {event['position']} to the signed root")
    if not any(key.has_signed(note) for key in keys):
        raise Unusable(f"its checkpoint of {note.size} events is signed by none of the keys")
    return event, note.size


# --- The command line ----------------------------------------------------------------------------------------------


def unpacked(path, scratch):
    """The directory of a bundle; a tar file is unpacked into the scratch directory, whatever its paths are."""
    if os.path.isdir(path):
        return path
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.isfile():
                    with open(os.path.join(scratch, os.path.basename(member.name)), "wb") as out:
                        content = tar.extractfile(member)
                        for block in iter(lambda: content.read(1 << 20), b""):
                            out.write(block)
    except (OSError, tarfile.TarError) as error:
        raise Unusable(f"`{path}` is neither a directory nor a tar file: {error}") from error
    return scratch


def report(verifier, is_pinned):
    faults = verifier.faults
    proven = f"ok: events {verifier.first} to {verifier.range.size} are what was signed"
    print(proven if not faults else f"NOT OK: {len(faults)} fault(s)")
    for fault in faults:
        first, last = fault["position"], fault["until"]
        place = f"position {first}" if first == last else f"positions {first} to {last}"
        print(f"  {place}: {fault['kind']}: {fault['detail']}")
    print(f"events       {verifier.first} to {verifier.range.size}, hash {verifier.previous.hex()}")
    print(f"checkpoints  {verifier.agreed} agree, up to position {verifier.covered}")
    for key in verifier.keys:
        print(f"key          {key.text}")
        print(f"             ({'as you named it' if is_pinned else 'as the bundle names it: compare it with yours'})")


def read(path):
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()
    except (OSError, UnicodeError) as error:
        raise Unusable(f"`{path}` cannot be read: {error}") from error


def kept(path):
    """The text of a file of checkpoints, which has some."""
    text = read(path)
    if not notes(text):
        raise Unusable(f"`{path}` holds no checkpoint to compare with")
    return text


def run(arguments):
    keys = [Key(key) for key in arguments.key]
    if arguments.proof:
        if not keys:
            raise Unusable("name the key with --key: a proof says nothing without one that is known from elsewhere")
        event, size = check_proof(read(arguments.proof), keys)
        print(f"proven: position {event['position']} of a log that was signed with {size} events")
        print(f"  {event['recordedAt']}  {event['principal']}  {event['stream']}  {event['kind']}")
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        against = [(name, kept(name)) for name in arguments.against]
        witness = WitnessKey(arguments.witness_key) if arguments.witness_key else None
        verifier = Verifier(unpacked(arguments.bundle, scratch), keys, against, witness)
        verifier.run()
    if arguments.json:
        print(json.dumps({"ok": not verifier.faults, "last": verifier.range.size, "checkpoints": verifier.agreed,
                          "covered": verifier.covered, "faults": verifier.faults}))
    else:
        report(verifier, bool(keys))
    return 1 if verifier.faults else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", nargs="?", default=os.path.dirname(os.path.abspath(__file__)),
                        help="the bundle: a directory or a tar file (default: where this program lies)")
    parser.add_argument("--key", action="append", default=[], help="the public key that must have signed")
    parser.add_argument("--against", action="append", default=[], metavar="FILE", help="checkpoints that you have kept")
    parser.add_argument("--witness-key", metavar="KEY", help="a witness that must have cosigned a checkpoint in the bundle")
    parser.add_argument("--proof", metavar="FILE", help="check the proof of one event instead of a bundle")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    try:
        sys.exit(run(parser.parse_args()))
    except Unusable as error:
        print(f"verify.py: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
