"""Plays one recorded scenario against a hub, with the recording's own player.

usage: player.py RECORDED SCENARIO --env ENV.json --out FILE [--quiet]

A Work of the hub names its files and the digest of their bytes, which lie in Contents. The player
knows only Works that hold the bytes; so it is shown each Work as if it did.
"""

import base64
import os
import struct
import sys

import zstandard

recorded = os.path.abspath(sys.argv.pop(1))
scenario = os.path.join(recorded, "scenarios", sys.argv.pop(1))
sys.path.insert(0, recorded)

import play  # noqa: E402 - found only now

MAGIC = b"muster.fileset.v1"
CONTENTS = "/apis/fleet.muster.dev/v1alpha1/contents/"


def fields(data):
    """The canonical bytes of a file set: everything is prefixed by its length, or is a count."""
    at = 0

    def number():
        nonlocal at
        at += 4
        return struct.unpack_from(">I", data, at - 4)[0]

    def text():
        nonlocal at
        length = number()
        at += length
        return data[at - length : at]

    if text() != MAGIC:
        raise ValueError("not a file set")
    return {text().decode(): text() for _ in range(number())}


def files(kube, digest):
    """The files of a Content by path, or none when it is gone."""
    try:
        first = kube.get(CONTENTS + digest)
        parts = [first] + [kube.get(f"{CONTENTS}{digest}.{i}") for i in range(1, first["spec"]["parts"])]
    except play.ApiError as error:
        if error.code != 404:
            raise
        return {}
    packed = b"".join(base64.b64decode(part["spec"]["data"]) for part in parts)
    return fields(zstandard.ZstdDecompressor().decompressobj().decompress(packed))


def fill(kube, holder):
    """Puts the bytes where Kratix has them."""
    known = files(kube, holder["digest"]) if holder.get("workloads") else {}
    for workload in holder.get("workloads") or []:
        found = known.get(workload["filepath"])
        workload["content"] = "(gone)" if found is None else found.decode(errors="replace")


class World(play.World):
    """Sees the hub's own kinds no more than Kratix's: only those that Promises bring are recorded as such."""

    def saw(self, typ, kind, o):
        if kind == "CRD" and o["spec"]["group"] == "fleet.muster.dev":
            return
        super().saw(typ, kind, o)


class Player(play.Player):
    """Shows Works and WorkPlacements with what their files hold."""

    def do_snapshot(self, name):
        def clean(kind, seen):
            seen = play.copy.deepcopy(seen)
            for holder in seen["spec"].get("workloadGroups") or [] if kind == "Work" else []:
                fill(self.w.k, holder)
            if kind == "WorkPlacement":
                fill(self.w.k, seen["spec"])
            return original(kind, seen)

        original, play.clean = play.clean, clean
        try:
            super().do_snapshot(name)
        finally:
            play.clean = original


if __name__ == "__main__":
    play.World, play.Player = World, Player
    sys.argv.insert(1, scenario)
    play.main()
