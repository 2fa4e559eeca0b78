#include "cli/updates.h"

#include <string.h>

#include "cli/show.h"

/* clang-format off */
static const struct cli_col LINES[] = {{"id", "deployment", 0}, {"state", "state", 0}, {"model", "model", 0}, {"version", "version", 0}, {"package", "package (H)", 0}, {"fleet", "fleet", 0}, {"device", "device", 0}, {"allow_rollback", "may go back", 0}, {"created_at", "created", 0}, {"created_by", "by", 0}};
static const struct cli_col UPDATES[] = {{"device", "DEVICE", 0}, {"device_name", "NAME", 0}, {"state", "STATE", 0}, {"code", "CODE", 0}, {"updated_at", "SINCE", 0}, {"reason", "REASON", 0}};

/* clang-format on */

enum tg_rc cli_deployment_get(struct cli_api *api, const char *id, struct tg_wire_deployment *out,
                              struct tg_err *err)
{
    struct tg_wire_deployment page = {0};
    struct tg_jlist all = {0};

    do {
        TG_AUTO(tg_freep) char *target = NULL;
        TG_AUTO(tg_buf_done) struct tg_buf query = TG_BUF_INIT(1024);
        enum tg_rc rc = tg_buf_str(&query, "?limit=1000");
        if (rc == TG_OK && page.next != NULL)
            rc = tg_buf_str(&query, "&after=");
        if (rc == TG_OK && page.next != NULL)
            rc = tg_http_encode(&query, page.next);
        if (rc != TG_OK)
            return TG_FAIL(err, rc, "out of memory");
        TG_TRY(cli_api_path(TG_API_PREFIX "/deployments", id, tg_buf_cstr(&query), &target, err));
        struct cli_call call = {
            .target = target, .answer_schema = &tg_wire_deployment, .answer = &page};
        page = (struct tg_wire_deployment){0};
        TG_TRY(cli_api_call(api, &call, err));
        struct tg_wire_update *v =
            tg_arena_alloc(api->arena, all.n + page.updates.n + 1, sizeof(*v));
        if (v == NULL)
            return TG_FAIL(err, TG_E_NOMEM, "out of memory");
        if (all.n > 0)
            memcpy(v, all.items, all.n * sizeof(*v));
        if (page.updates.n > 0)
            memcpy(v + all.n, page.updates.items, page.updates.n * sizeof(*v));
        all = (struct tg_jlist){.items = v, .n = all.n + page.updates.n};
    } while (page.next != NULL && page.next[0] != 0 && page.updates.n > 0);
    *out = page;
    out->updates = all;
    out->next = NULL;
    return TG_OK;
}

struct cli_progress_of cli_deployment_progress(const struct tg_wire_deployment *d)
{
    const struct tg_wire_update_counts *c = &d->counts;
    struct cli_progress_of p = {.running = (size_t)c->running,
                                .failed = (size_t)(c->failed + c->rolled_back),
                                .waiting = (size_t)(c->pending + c->offered + c->downloading +
                                                    c->downloaded + c->verifying + c->loading)};
    p.devices = p.running + p.failed + p.waiting;
    return p;
}

void cli_deployment_show(struct cli_out *o, const struct tg_wire_deployment *d)
{
    static const struct cli_list_look look = {
        .key = "updates",
        .item = &tg_wire_update,
        .cols = {UPDATES, TG_ARRAY_LEN(UPDATES)},
        .empty = "It concerns no device yet."
    };

    if (o->json) {
        cli_out_document(o, &tg_wire_deployment, d);
        return;
    }
    cli_show_document(o, &tg_wire_deployment, d, CLI_COLS(LINES));
    cli_out_blank(o);
    cli_show_list(o, &look, &d->updates);
}
