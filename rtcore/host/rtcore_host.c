/* rtcore_host.c - the thread's count of clipped values; see rtcore_host.h. */
__thread long rtcore_host_saturated;
