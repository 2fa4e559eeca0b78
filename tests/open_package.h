/* A package file opened up to its keys, for small programs that go on from there. */
#ifndef TG_TESTS_OPEN_PACKAGE_H
#define TG_TESTS_OPEN_PACKAGE_H

#include <errno.h>
#include <fcntl.h>

#include "crypto/keyfile.h"
#include "tgsp/package.h"

struct package_files {
    const char *package, *key, *author; /* F.tgsp, encryption.priv, signing.pub */
};

/* The descriptor behind src stays open until the process ends. */
static inline TG_RC package_open(const struct package_files *f, struct tg_tgsp **out,
                                 struct tg_err *err)
{
    const struct tg_tgsp_policy policy = {.check_time = false};
    struct tg_src src;
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = NULL;
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *sk = NULL;
    TG_AUTO(tg_sign_pk_freep) struct tg_sign_pk *pk = NULL;
    TG_AUTO(tg_trust_freep) struct tg_trust *trust = NULL;
    TG_TRY(tg_kem_sk_load_file(f->key, TG_BYTES_NONE, &sk, err));
    TG_TRY(tg_sign_pk_load_file(f->author, &pk, err));
    TG_TRY(tg_trust_new(&trust));
    const struct tg_trust_key key = {.pk = pk, .roles = TG_ROLE_AUTHOR};
    TG_TRY(tg_trust_add(trust, &key, err));
    int fd = open(f->package, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s", f->package);
    TG_TRY(tg_src_fd(&src, fd, f->package, err));
    TG_TRY(tg_tgsp_open(&src, &p, err));
    TG_TRY(tg_tgsp_verify(p, trust, err));
    TG_TRY(tg_tgsp_admit(p, &policy, err));
    TG_TRY(tg_tgsp_unwrap(p, sk, err));
    *out = tg_steal(&p);
    return TG_OK;
}

#endif
