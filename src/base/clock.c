#include "base/clock.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static struct timespec read_clock(clockid_t id)
{
    struct timespec ts = {0, 0};

    (void)clock_gettime(id, &ts);
    return ts;
}

int64_t tg_clock_now(void)
{
    return (int64_t)read_clock(CLOCK_REALTIME).tv_sec;
}

int64_t tg_clock_now_ms(void)
{
    struct timespec ts = read_clock(CLOCK_REALTIME);

    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

uint64_t tg_clock_mono_ns(void)
{
    struct timespec ts = read_clock(CLOCK_MONOTONIC);

    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

void tg_clock_sleep_ms(uint32_t ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

    while (nanosleep(&ts, &ts) != 0 && errno == EINTR)
        continue;
}

/* ---- calendar: days since 1970-01-01 and back, proleptic Gregorian, without the C library's
 * time zone machinery ---- */

static bool is_leap(int64_t year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static int64_t days_before_year(int64_t year)
{
    int64_t y = year - 1;

    return (year - 1970) * 365 + (y / 4 - 1969 / 4) - (y / 100 - 1969 / 100) +
           (y / 400 - 1969 / 400);
}

static int month_days(int64_t year, int month)
{
    static const int days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

    return days[month] + (month == 1 && is_leap(year) ? 1 : 0);
}

enum tg_rc tg_time_format(int64_t t, char out[TG_TIME_TEXT])
{
    int64_t days, secs, year;
    int month = 0;
    char text[64];

    if (t < 0 || t > INT64_C(253402300799)) /* 9999-12-31T23:59:59Z */
        return TG_E_LIMIT;
    days = t / 86400;
    secs = t % 86400;
    year = 1970 + days / 366;
    while (days_before_year(year + 1) <= days)
        year++;
    days -= days_before_year(year);
    while (days >= month_days(year, month))
        days -= month_days(year, month++);
    (void)snprintf(text, sizeof(text), "%04d-%02d-%02dT%02d:%02d:%02dZ", (int)year, month + 1,
                   (int)days + 1, (int)(secs / 3600), (int)(secs / 60 % 60), (int)(secs % 60));
    memcpy(out, text, TG_TIME_TEXT);
    return TG_OK;
}

static bool digits(const char *s, int n, int64_t *out)
{
    *out = 0;
    for (int i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        *out = *out * 10 + (s[i] - '0');
    }
    return true;
}

enum tg_rc tg_time_parse(const char *s, size_t n, int64_t *out)
{
    static const char form[] = "dddd-dd-ddTdd:dd:ddZ";
    int64_t year, month, day, hour, minute, second, days;

    if (n != sizeof(form) - 1)
        return TG_E_FORMAT;
    for (size_t i = 0; i < n; i++)
        if (form[i] != 'd' && s[i] != form[i])
            return TG_E_FORMAT;
    if (!digits(s, 4, &year) || !digits(s + 5, 2, &month) || !digits(s + 8, 2, &day) ||
        !digits(s + 11, 2, &hour) || !digits(s + 14, 2, &minute) || !digits(s + 17, 2, &second))
        return TG_E_FORMAT;
    if (year < 1970 || month < 1 || month > 12 || day < 1 || hour > 23 || minute > 59 ||
        second > 59 || day > month_days(year, (int)month - 1))
        return TG_E_FORMAT;
    days = days_before_year(year) + day - 1;
    for (int m = 0; m < (int)month - 1; m++)
        days += month_days(year, m);
    *out = days * 86400 + hour * 3600 + minute * 60 + second;
    return TG_OK;
}
