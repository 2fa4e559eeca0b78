/* Opening names beneath a folder without following a symbolic link anywhere on the way. */
#ifndef TG_TGSP_BENEATH_INTERNAL_H
#define TG_TGSP_BENEATH_INTERNAL_H

#include <sys/types.h>

/* As openat(2), with openat2's RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS where the kernel has it;
 * else component by component with O_NOFOLLOW. -1 and errno on failure. O_CLOEXEC is added. */
int tg_open_beneath(int dirfd, const char *path, int flags, mode_t mode);
/* The latter of the two alone (tests). */
int tg_open_beneath_walk(int dirfd, const char *path, int flags, mode_t mode);

#endif
