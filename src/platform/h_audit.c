/* Reading and checking the audit log. */
#include <string.h>

#include "platform/audit.h"
#include "platform/handlers.h"

enum tg_rc tg_h_audit_list(struct tg_call *c, struct tg_err *err)
{
    struct tg_audit_filter f = {.actor = tg_call_query(c, "actor"),
                                .action = tg_call_query(c, "action")};
    struct tg_page page;
    struct tg_jlist rows;
    struct tg_wire_audit out = {.next = NULL};

    TG_TRY(tg_call_page(c, &page, err));
    TG_TRY(tg_call_query_hash(c, "package", &f.package, err));
    TG_TRY(tg_audit_list(c->db, &f, &page, c->arena, &rows, err));
    TG_TRY(tg_call_items(c, &out.items, rows.n, sizeof(struct tg_wire_audit_row), err));
    for (size_t i = 0; i < rows.n; i++) {
        const struct tg_audit_row *r = &((const struct tg_audit_row *)rows.items)[i];
        struct tg_wire_audit_row *w = &((struct tg_wire_audit_row *)out.items.items)[i];
        *w = (struct tg_wire_audit_row){.seq = r->seq,
                                        .at = r->at,
                                        .actor = r->actor,
                                        .name = r->name,
                                        .address = r->address,
                                        .action = r->action,
                                        .target = r->target,
                                        .outcome = r->outcome,
                                        .detail = r->detail};
        memcpy(w->prev_hash, r->prev_hash, 32);
        memcpy(w->hash, r->hash, 32);
        if (r->package.n == 32)
            memcpy(w->package, r->package.p, 32);
        if (i + 1 == page.limit)
            TG_TRY(tg_call_text(c, &out.next, err, "%llu", (unsigned long long)r->seq));
    }
    return tg_call_answer(c, 200, &tg_wire_audit, &out, err);
}

enum tg_rc tg_h_audit_verify(struct tg_call *c, struct tg_err *err)
{
    struct tg_wire_audit_check out;
    char text[256];

    TG_TRY(tg_audit_verify(c->db, &out, text, sizeof(text), err));
    return tg_call_answer(c, 200, &tg_wire_audit_check, &out, err);
}
