/* Key files, read as each of the four kinds. */
#include "crypto/keyfile.h"
#include "fuzz_tgsp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_bytes pem = tg_bytes_make(data, n), pass = tg_bytes_str("fuzz");
    TG_AUTO(tg_sign_sk_freep) struct tg_sign_sk *ssk = NULL;
    TG_AUTO(tg_sign_pk_freep) struct tg_sign_pk *spk = NULL;
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *ksk = NULL;
    TG_AUTO(tg_kem_pk_freep) struct tg_kem_pk *kpk = NULL;
    int read = 0;
    if (n > TG_KEYFILE_MAX)
        return 0;
    /* An encrypted file costs scrypt: only with a passphrase, and the fuzzer has none that fits. */
    if (tg_keyfile_encrypted(pem))
        pass = TG_BYTES_NONE;
    read += tg_sign_sk_from_pem(pem, "fuzz", pass, &ssk, &err) == TG_OK;
    read += tg_sign_pk_from_pem(pem, "fuzz", &spk, &err) == TG_OK;
    read += tg_kem_sk_from_pem(pem, "fuzz", pass, &ksk, &err) == TG_OK;
    read += tg_kem_pk_from_pem(pem, "fuzz", &kpk, &err) == TG_OK;
    FUZZ_NEED(read <= 1);
    FUZZ_NEED(read == 1 || err.msg[0] != '\0');
    return 0;
}
