/* Time of the hybrid operations, and of their halves and plain alternatives straight from
 * libcrypto, in one process. Prints one JSON object: name -> microseconds of processor time per
 * operation (the median of rounds): others on the machine disturb that less than the clock's.
 *
 *   bench_crypto [SECONDS-PER-ROW]      default 0.5 */
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "crypto/kem.h"
#include "crypto/sign.h"

#define ROUNDS 9

struct bench {
    struct tg_sign_sk *sign;
    struct tg_kem_sk *kem;
    struct tg_sig sig;
    struct tg_kem_ct ct;
    EVP_PKEY *ed25519, *mldsa, *x25519, *x25519_peer, *mlkem;
    uint8_t ed_sig[64], pq_sig[TG_SIG_PQC_LEN], kem_ct[TG_KEM_CT_LEN], ss[64];
    uint8_t msg[96]; /* as long as the message a package signature covers */
};

static void must(int ok, const char *what)
{
    if (!ok) {
        (void)fprintf(stderr, "bench_crypto: %s failed\n", what);
        exit(1);
    }
}

static void hybrid_sign(struct bench *b)
{
    must(tg_sign(b->sign, TG_BYTES_OF(b->msg), false, &b->sig) == TG_OK, "sign");
}

static void hybrid_verify(struct bench *b)
{
    must(tg_sign_verify(tg_sign_sk_pk(b->sign), TG_BYTES_OF(b->msg), &b->sig) == TG_OK, "verify");
}

static void hybrid_encap(struct bench *b)
{
    must(tg_kem_encap(tg_kem_sk_pk(b->kem), NULL, &b->ct, b->ss) == TG_OK, "encapsulate");
}

static void hybrid_decap(struct bench *b)
{
    must(tg_kem_decap(b->kem, &b->ct, b->ss) == TG_OK, "decapsulate");
}

static void raw_sign(EVP_PKEY *key, const uint8_t *msg, size_t n, uint8_t *sig, size_t sig_n)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();

    must(EVP_DigestSignInit(ctx, NULL, NULL, NULL, key) == 1 &&
             EVP_DigestSign(ctx, sig, &sig_n, msg, n) == 1,
         "plain sign");
    EVP_MD_CTX_free(ctx);
}

static void raw_verify(EVP_PKEY *key, const uint8_t *msg, size_t n, const uint8_t *sig,
                       size_t sig_n)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();

    must(EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key) == 1 &&
             EVP_DigestVerify(ctx, sig, sig_n, msg, n) == 1,
         "plain verify");
    EVP_MD_CTX_free(ctx);
}

static void ed25519_sign(struct bench *b)
{
    raw_sign(b->ed25519, b->msg, sizeof(b->msg), b->ed_sig, sizeof(b->ed_sig));
}

static void ed25519_verify(struct bench *b)
{
    raw_verify(b->ed25519, b->msg, sizeof(b->msg), b->ed_sig, sizeof(b->ed_sig));
}

static void mldsa_sign(struct bench *b)
{
    raw_sign(b->mldsa, b->msg, sizeof(b->msg), b->pq_sig, sizeof(b->pq_sig));
}

static void mldsa_verify(struct bench *b)
{
    raw_verify(b->mldsa, b->msg, sizeof(b->msg), b->pq_sig, sizeof(b->pq_sig));
}

static void derive(EVP_PKEY *own, EVP_PKEY *peer, uint8_t out[64])
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, own, NULL);
    size_t n = 32;

    must(ctx != NULL && EVP_PKEY_derive_init(ctx) == 1 &&
             EVP_PKEY_derive_set_peer(ctx, peer) == 1 && EVP_PKEY_derive(ctx, out, &n) == 1,
         "X25519");
    EVP_PKEY_CTX_free(ctx);
}

/* What one side of an ephemeral-static exchange costs. */
static void x25519_encap(struct bench *b)
{
    EVP_PKEY *fresh = EVP_PKEY_Q_keygen(NULL, NULL, "X25519");

    derive(fresh, b->x25519_peer, b->ss);
    EVP_PKEY_free(fresh);
}

static void x25519_decap(struct bench *b)
{
    derive(b->x25519, b->x25519_peer, b->ss);
}

static void mlkem_encap(struct bench *b)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, b->mlkem, NULL);
    size_t ct = sizeof(b->kem_ct), ss = 32;

    must(ctx != NULL && EVP_PKEY_encapsulate_init(ctx, NULL) == 1 &&
             EVP_PKEY_encapsulate(ctx, b->kem_ct, &ct, b->ss, &ss) == 1,
         "ML-KEM encapsulate");
    EVP_PKEY_CTX_free(ctx);
}

static void mlkem_decap(struct bench *b)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, b->mlkem, NULL);
    size_t ss = 32;

    must(ctx != NULL && EVP_PKEY_decapsulate_init(ctx, NULL) == 1 &&
             EVP_PKEY_decapsulate(ctx, b->ss, &ss, b->kem_ct, sizeof(b->kem_ct)) == 1,
         "ML-KEM decapsulate");
    EVP_PKEY_CTX_free(ctx);
}

static const struct row {
    const char *name;
    void (*run)(struct bench *b);
} rows[] = {
    {"hybrid_sign",    hybrid_sign   },
    {"ed25519_sign",   ed25519_sign  },
    {"mldsa65_sign",   mldsa_sign    },
    {"hybrid_verify",  hybrid_verify },
    {"ed25519_verify", ed25519_verify},
    {"mldsa65_verify", mldsa_verify  },
    {"hybrid_encap",   hybrid_encap  },
    {"x25519_encap",   x25519_encap  },
    {"mlkem768_encap", mlkem_encap   },
    {"hybrid_decap",   hybrid_decap  },
    {"x25519_decap",   x25519_decap  },
    {"mlkem768_decap", mlkem_decap   },
};

static uint64_t cpu_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static double round_us(const struct row *row, struct bench *b, double seconds)
{
    uint64_t t0 = cpu_ns(), until = t0 + (uint64_t)(seconds * 1e9), now, n = 0;

    do {
        row->run(b);
        n++;
        now = cpu_ns();
    } while (now < until);
    return (double)(now - t0) / 1e3 / (double)n;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    static struct bench b;
    double seconds = (argc > 1 ? strtod(argv[1], NULL) : 0.5) / ROUNDS;
    static double us[TG_ARRAY_LEN(rows)][ROUNDS];

    must(tg_sign_sk_generate(NULL, &b.sign) == TG_OK && tg_kem_sk_generate(NULL, &b.kem) == TG_OK,
         "key generation");
    b.ed25519 = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    b.mldsa = EVP_PKEY_Q_keygen(NULL, NULL, "ML-DSA-65");
    b.x25519 = EVP_PKEY_Q_keygen(NULL, NULL, "X25519");
    b.x25519_peer = EVP_PKEY_Q_keygen(NULL, NULL, "X25519");
    b.mlkem = EVP_PKEY_Q_keygen(NULL, NULL, "ML-KEM-768");
    must(b.ed25519 && b.mldsa && b.x25519 && b.x25519_peer && b.mlkem, "key generation");
    memset(b.msg, 'm', sizeof(b.msg));
    /* Rounds of all rows in turn: a slow moment of the machine hits each of them. */
    for (size_t r = 0; r < ROUNDS; r++)
        for (size_t i = 0; i < TG_ARRAY_LEN(rows); i++)
            us[i][r] = round_us(&rows[i], &b, seconds);
    (void)printf("{");
    for (size_t i = 0; i < TG_ARRAY_LEN(rows); i++) {
        qsort(us[i], ROUNDS, sizeof(us[i][0]), by_value);
        (void)printf("%s\"%s\": %.2f", i > 0 ? ", " : "", rows[i].name, us[i][ROUNDS / 2]);
    }
    (void)printf("}\n");
    return 0;
}
