/* For processes whose requests and answers are secret: from here on whatever libevent frees (its
 * buffers above all) is overwritten first. */
#ifndef TG_NET_WIPE_H
#define TG_NET_WIPE_H

/* Before anything else of libevent is called. */
void tg_net_wipe_freed(void);

#endif
