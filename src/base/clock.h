/* Time. Code that decides by time takes the time as an argument; only mains read the clock. */
#ifndef TG_BASE_CLOCK_H
#define TG_BASE_CLOCK_H

#include <stdint.h>

#include "base/err.h"

int64_t tg_clock_now(void);      /* wall clock, Unix seconds */
int64_t tg_clock_now_ms(void);   /* wall clock, Unix milliseconds */
uint64_t tg_clock_mono_ns(void); /* monotonic, nanoseconds */
void tg_clock_sleep_ms(uint32_t ms);

#define TG_TIME_TEXT 21 /* "YYYY-MM-DDTHH:MM:SSZ" and NUL */

/* Unix seconds to exactly YYYY-MM-DDTHH:MM:SSZ. @retval TG_E_LIMIT outside years 1970..9999 */
TG_RC tg_time_format(int64_t t, char out[TG_TIME_TEXT]);
/* The reverse; exactly that form, a real date, no leap second. @retval TG_E_FORMAT */
TG_RC tg_time_parse(const char *s, size_t n, int64_t *out);

#endif
