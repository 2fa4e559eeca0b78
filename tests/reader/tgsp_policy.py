"""The documents around a package, for the independent reader: trust stores (§6), signed deployments (§9), the
rollback record (§10). Written from docs/spec/tgsp-1.0.md alone."""
import tgsp_reader as r
from tgsp_reader import b64, crit_check, crit_list, field, list_of, need, only_fields, parse_time, strict_json

TRUST_FIELDS = dict.fromkeys(("tgsp_trust", "version", "issued_at", "keys", "default_threshold",
                              "thresholds", "change_threshold", "resets", "crit"))
DEPLOYMENT_FIELDS = dict.fromkeys(("tgsp_deployment", "deployment_id", "header_sha256", "fleet", "device",
                                   "allow_rollback", "issued_at", "not_after", "crit"))
KEY_FIELDS = {"public_key", "label", "roles", "models"}


def trust_message(key_id, document):
    return b"TGSP-1.0 trust store\0" + key_id + r.sha256(document)


class TrustStore(r.Trust):
    def __init__(self, raw):
        super().__init__()
        self.document, self.entries = r.signed_document(raw, "trust", 16, 4 << 20)
        j = strict_json(self.document, "trust")
        need(field(j, "tgsp_trust", str, "trust") == "1.0", "UNSUPPORTED", "trust.tgsp_trust: not known")
        crit_check(crit_list(j, "trust", ("trust.",)), "trust.", j, TRUST_FIELDS)
        self.version = field(j, "version", int, "trust", 1)
        parse_time(j.get("issued_at"), "trust.issued_at")
        self.default_threshold = field(j, "default_threshold", int, "trust", 1, 16)
        self.change_threshold = field(j, "change_threshold", int, "trust", 1, 16)
        for i, k in enumerate(list_of(j, "keys", "trust", 0, 512)):
            self._key(k, f"trust.keys[{i}]")
        self.thresholds = self._numbers(j, "thresholds", "signatures", 1, 16)
        self.resets = self._numbers(j, "resets", "count", 1, None)

    def _key(self, k, at):
        only_fields(k, KEY_FIELDS, at)
        raw = b64(k.get("public_key"), at + ".public_key", 1984)
        if "label" in k:
            field(k, "label", str, at, 1, 128)
        roles = r.string_list(k, "roles", at, 1, 3)
        need(all(role in ("author", "granter", "platform") for role in roles), "UNSUPPORTED", f"{at}.roles")
        need(len(set(roles)) == len(roles), "FORMAT", f"{at}.roles: one stands twice")
        models = r.string_list(k, "models", at, 1, 256) if "models" in k else None
        need(models is None or "author" in roles, "FORMAT", f"{at}.models: only for authors")
        self.add(r.signing_public(raw), roles, models)

    @staticmethod
    def _numbers(j, name, value, lo, hi):
        out = {}
        for i, e in enumerate(list_of(j, name, "trust")):
            at = f"trust.{name}[{i}]"
            only_fields(e, {"model", value}, at)
            model = field(e, "model", str, at, 1, 256)
            need(model not in out, "FORMAT", f"{at}: a model stands twice")
            out[model] = field(e, value, int, at, lo, hi)
        return out

    def may_become(self, following):
        """§6: may `following` take this store's place?"""
        need(following.version > self.version, "ROLLBACK", "trust store: not newer")
        good = self.verified(following.entries, lambda key_id: trust_message(key_id, following.document))
        count = sum("author" in self.keys[k][1] and self.keys[k][2] is None for k in good)
        need(count >= self.change_threshold, "DENIED",
             f"trust store: {count} of {self.change_threshold} signatures needed for a change")


class Deployment:
    def __init__(self, raw):
        self.document, self.entries = r.signed_document(raw, "deployment")
        j = strict_json(self.document, "deployment")
        need(field(j, "tgsp_deployment", str, "deployment") == "1.0", "UNSUPPORTED",
             "deployment.tgsp_deployment: not known")
        crit_check(crit_list(j, "deployment", ("deployment.",)), "deployment.", j, DEPLOYMENT_FIELDS)
        field(j, "deployment_id", str, "deployment", 1, 64)
        self.h = b64(j.get("header_sha256"), "deployment.header_sha256", 32)
        self.fleet = field(j, "fleet", str, "deployment", 1, 256)
        self.device = field(j, "device", str, "deployment", 1, 256) if "device" in j else None
        self.allow_rollback = field(j, "allow_rollback", bool, "deployment")
        self.issued_at = parse_time(j.get("issued_at"), "deployment.issued_at")
        self.not_after = parse_time(j.get("not_after"), "deployment.not_after")

    def check(self, trust, now, fleet, device, h):
        good = trust.verified(self.entries, lambda key_id: r.deployment_message(key_id, self.document))
        need(good, "AUTH", "deployment: not by a trusted key")
        need(any("platform" in trust.keys[k][1] for k in good), "DENIED",
             "deployment: signed by a trusted key without the role platform")
        need(self.issued_at - 300 <= now < self.not_after, "EXPIRED", "deployment: not valid now")
        need(self.fleet == fleet, "DENIED", "deployment: for another fleet")
        need(self.device in (None, device), "DENIED", "deployment: for another device")
        need(self.h == h, "DENIED", "deployment: names another package")


class Record:
    """The rollback record and its decision, first match."""

    def __init__(self, raw):
        j = strict_json(raw, "rollback")
        only_fields(j, {"tgsp_rollback", "models"}, "rollback")
        need(field(j, "tgsp_rollback", str, "rollback") == "1.0", "UNSUPPORTED", "rollback.tgsp_rollback")
        self.models = {}
        for i, e in enumerate(list_of(j, "models", "rollback", 0, 1024)):
            at = f"rollback.models[{i}]"
            only_fields(e, {"model", "floor", "sequence", "header_sha256", "current", "previous", "reset_count"}, at)
            name = field(e, "model", str, at, 1, 256)
            need(name not in self.models, "FORMAT", f"{at}: a model stands twice")
            self.models[name] = {
                "floor": field(e, "floor", int, at), "sequence": field(e, "sequence", int, at),
                "h": b64(e.get("header_sha256"), at + ".header_sha256", 32),
                "current": b64(e.get("current"), at + ".current", 32),
                "previous": b64(e["previous"], at + ".previous", 32) if "previous" in e else None,
                "resets": field(e, "reset_count", int, at) if "reset_count" in e else 0}

    def decide(self, package, resets, allowed):
        model = package.manifest["model"]
        e = self.models.get(model["name"])
        if e is None or resets > e["resets"]:
            return
        s, h = model["sequence"], package.h
        need(s >= e["floor"], "ROLLBACK", f"sequence {s} is below the floor {e['floor']}")
        need(s > e["sequence"] or (s == e["sequence"] and h == e["h"]) or h in (e["current"], e["previous"])
             or allowed, "ROLLBACK", f"sequence {s}: {e['sequence']} ran already")
