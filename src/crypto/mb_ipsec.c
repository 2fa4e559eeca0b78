/* libipsec-mb 1.3 and 2.0 alike: only what both have, the job interface. Making a manager takes no
 * system call, so it works inside the worker's sandbox. */
#include <cpuid.h>
#include <intel-ipsec-mb.h>

#include "base/mem.h"
#include "crypto/mb_internal.h"

#define MANAGER_ALIGN 64
#define LEAF7_EBX_SHA (UINT32_C(1) << 29)

struct tg_mb {
    IMB_MGR *manager;
    void *memory; /* the manager's, unaligned */
};

/* __builtin_cpu_supports of gcc 12 does not know the SHA instructions. */
static bool has_sha(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & LEAF7_EBX_SHA) != 0 &&
           __builtin_cpu_supports("sse4.2");
}

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl");
}

unsigned tg_mb_lanes(enum tg_sha256_way way)
{
    if (way == TG_SHA256_NARROW)
        return has_sha() ? 2 : 0;
    if (has_avx512())
        return 16;
    return __builtin_cpu_supports("avx2") && !has_sha() ? 8 : 0;
}

enum tg_rc tg_mb_new(enum tg_sha256_way way, struct tg_mb **out)
{
    struct tg_mb *mb = tg_calloc(1, sizeof *mb);
    size_t n = imb_get_mb_mgr_size();
    if (mb)
        mb->memory = tg_alloc(n + MANAGER_ALIGN);
    if (!mb || !mb->memory) {
        tg_mb_free(mb);
        return TG_E_NOMEM;
    }
    uintptr_t at = ((uintptr_t)mb->memory + MANAGER_ALIGN - 1) & ~(uintptr_t)(MANAGER_ALIGN - 1);
    mb->manager = imb_set_pointers_mb_mgr((void *)at, 0, 1);
    if (mb->manager && way == TG_SHA256_NARROW)
        init_mb_mgr_sse(mb->manager); /* the only kind that takes the SHA instructions everywhere */
    else if (mb->manager)
        init_mb_mgr_auto(mb->manager, NULL);
    if (!mb->manager || imb_get_errno(mb->manager) != 0) {
        tg_mb_free(mb);
        return TG_E_UNSUPPORTED;
    }
    *out = mb;
    return TG_OK;
}

void tg_mb_free(struct tg_mb *mb)
{
    if (!mb)
        return;
    tg_free(mb->memory);
    tg_free(mb);
}

/* 1: this job is done. */
static unsigned done(const IMB_JOB *job)
{
    return job && job->status == IMB_STATUS_COMPLETED ? 1 : 0;
}

enum tg_rc tg_mb_hash(struct tg_mb *mb, const struct tg_bytes *in, size_t n, uint8_t *const out[])
{
    IMB_MGR *m = mb->manager;
    unsigned finished = 0;
    if (n > TG_MB_BATCH)
        return TG_E_LIMIT;
    for (size_t i = 0; i < n; i++) {
        IMB_JOB *job = IMB_GET_NEXT_JOB(m);
        *job = (IMB_JOB){.cipher_mode = IMB_CIPHER_NULL,
                         .cipher_direction = IMB_DIR_ENCRYPT,
                         .chain_order = IMB_ORDER_HASH_CIPHER,
                         .hash_alg = IMB_AUTH_SHA_256,
                         .src = in[i].p,
                         .msg_len_to_hash_in_bytes = in[i].n,
                         .auth_tag_output = out[i],
                         .auth_tag_output_len_in_bytes = TG_SHA256_LEN};
        finished += done(IMB_SUBMIT_JOB(m));
    }
    /* Nothing stays in the manager: it must not keep the caller's pointers. */
    for (const IMB_JOB *job = IMB_FLUSH_JOB(m); job; job = IMB_FLUSH_JOB(m))
        finished += done(job);
    return finished == n ? TG_OK : TG_E_INTERNAL;
}
