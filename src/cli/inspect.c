#include <stddef.h>

#include "cli/cli.h"
#include "cli/package.h"
#include "codec/text.h"

struct inspect {
    bool json;
    bool files;
};

static const struct tg_opt OPTS[] = {
    CLI_OPT_JSON,
    {"files", TG_OPT_FLAG, offsetof(struct inspect, files), false, NULL, "list the files, too"},
    CLI_OPT_END,
};

static void show_metadata(struct cli_out *o, const struct tg_tgsp_manifest *m)
{
    const struct tg_jpair *pairs = m->model.metadata.items;

    cli_out_table(o, "metadata", m->model.metadata.n > 0 ? "Metadata" : NULL);
    for (size_t i = 0; i < m->model.metadata.n; i++) {
        cli_out_row(o);
        cli_out_str(o, "key", "KEY", pairs[i].key);
        cli_out_str(o, "value", "VALUE", pairs[i].value);
    }
    cli_out_table_end(o, NULL);
}

static void show_keys(struct cli_out *o, const struct tg_tgsp *p)
{
    const struct tg_tgsp_recipients *r = tg_tgsp_recipients_get(p);
    const struct tg_tgsp_signatures *s = tg_tgsp_signatures_get(p);
    const struct tg_tgsp_recipient *blocks = r->recipients.items;
    const struct tg_tgsp_signature *sigs = s->signatures.items;

    cli_out_table(o, "signatures", "Signatures (claimed)");
    for (size_t i = 0; i < s->signatures.n; i++) {
        cli_out_row(o);
        cli_out_hex(o, "key_id", "KEY ID", TG_BYTES_OF(sigs[i].key_id));
    }
    cli_out_table_end(o, "(none)");
    cli_out_table(o, "recipient_keys", "Recipients");
    for (size_t i = 0; i < r->recipients.n; i++) {
        cli_out_row(o);
        cli_out_hex(o, "key_id", "KEY ID", TG_BYTES_OF(blocks[i].id));
    }
    cli_out_table_end(o, "(none)");
}

static void show_files(struct cli_out *o, const struct tg_tgsp_manifest *m)
{
    const struct tg_tgsp_file *files = m->files.items;

    cli_out_table(o, "file_list", "Files");
    for (size_t i = 0; i < m->files.n; i++) {
        cli_out_row(o);
        cli_out_str(o, "path", "PATH", files[i].path);
        cli_out_size(o, "size", "SIZE", files[i].size);
    }
    cli_out_table_end(o, "(none)");
}

static enum tg_rc run(struct cli *c, void *opts, const struct tg_opt_list *args, struct tg_err *err)
{
    const struct inspect *o = opts;
    TG_AUTO(cli_package_done) struct cli_package p = CLI_PACKAGE_INIT;

    TG_TRY(cli_package_open(args->v[0], &p, err));
    TG_TRY(tg_tgsp_inspect(p.tgsp, err));
    const struct tg_tgsp_manifest *m = tg_tgsp_manifest_get(p.tgsp);
    cli_out_bool(&c->out, "verified", "verified", false);
    cli_package_show(&c->out, p.tgsp);
    show_metadata(&c->out, m);
    show_keys(&c->out, p.tgsp);
    if (o->files || o->json)
        show_files(&c->out, m);
    if (m->provenance.n > 0)
        cli_out_raw(&c->out, "provenance", "\nProvenance", m->provenance);
    cli_out_note(
        &c->out,
        "\nUNVERIFIED: this is what the file says of itself. `tensorguard verify` checks it.");
    return TG_OK;
}

const struct cli_verb cli_inspect = {
    .cmd = {.name = "inspect",
            .args = "F.tgsp",
            .summary = "show what a package says of itself (unverified)",
            .details =
                "Structure and hashes are checked, signatures are not: nothing shown here is\n"
                "known to come from anyone. No key is needed.\n", .opts = OPTS,
            .args_min = 1,
            .args_max = 1},
    .opts_size = sizeof(struct inspect),
    .run = run,
};
