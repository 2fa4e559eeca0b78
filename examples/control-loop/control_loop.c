/* A control loop with a model in it, once per millisecond, through libtensorguard.
 *
 *     cc control_loop.c $(pkg-config --cflags --libs tensorguard) -o control_loop
 *     ./control_loop /run/tensorguard/predict.sock.native 10
 *
 * Inputs are filled with zeros: put your sensors there. What counts is the shape of it: everything
 * that may take time happens before the loop; in it there is one call, and a turn that comes late
 * is counted, not caught up. A new version of the model can take over at any time: the loop goes on
 * (info.version then says so). */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tensorguard/tensorguard.h>
#include <time.h>

#define PERIOD_NS 1000000
#define DEADLINE_NS 500000000 /* of one call */

static uint64_t now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void sleep_until(uint64_t at)
{
    const struct timespec t = {(time_t)(at / 1000000000), (long)(at % 1000000000)};

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

/* One turn: sensors in, actuators out. */
static enum tg_status turn(struct tg_model *m, struct tg_error *e)
{
    struct tg_call *c;
    enum tg_status s = tg_call_begin(m, &c, e);

    if (s != TG_STATUS_OK)
        return s;
    for (size_t i = 0; i < tg_model_inputs(m); i++)
        memset(tg_call_input(c, i), 0, tg_model_input(m, i)->bytes);
    s = tg_call_run(c, DEADLINE_NS, e);
    /* here: act on tg_call_output(c, 0, NULL) */
    tg_call_end(c);
    return s;
}

int main(int argc, char **argv)
{
    struct tg_options o = TG_OPTIONS_INIT;
    struct tg_model *m;
    struct tg_error e;
    uint64_t next, worst = 0, sum = 0;
    unsigned long turns, late = 0, failed = 0;

    if (argc != 3) {
        (void)fprintf(stderr, "usage: control_loop SOCKET SECONDS\n");
        return 2;
    }
    turns = strtoul(argv[2], NULL, 10) * 1000;
    o.spin_ns = 100000; /* look for the answer this long before sleeping */
    if (tg_model_connect(argv[1], &o, &m, &e) != TG_STATUS_OK) {
        (void)fprintf(stderr, "control_loop: %s: %s\n", tg_status_name(e.status), e.text);
        return 1;
    }
    (void)printf("%s %s\n", tg_model_info(m).name, tg_model_info(m).version);
    next = now_ns();
    for (unsigned long i = 0; i < turns; i++) {
        uint64_t start, took;

        next += PERIOD_NS;
        sleep_until(next);
        start = now_ns();
        if (turn(m, &e) != TG_STATUS_OK) {
            failed++;
            (void)fprintf(stderr, "control_loop: %s: %s\n", tg_status_name(e.status), e.text);
        }
        took = now_ns() - start;
        sum += took;
        worst = took > worst ? took : worst;
        if (now_ns() > next + PERIOD_NS) {
            late++;
            next = now_ns();
        }
    }
    (void)printf("%s %s: %lu turns, %lu late, %lu failed, mean %.1f us, worst %.1f us\n",
                 tg_model_info(m).name, tg_model_info(m).version, turns, late, failed,
                 turns > 0 ? (double)sum / (double)turns / 1000 : 0.0, (double)worst / 1000);
    tg_model_close(m);
    return failed > 0;
}
