/* rtcore_host.h - what the host build adds to the kernels: a count of clipped values, never a different number.
 * Forced into every kernel source by the host's compiler flags (rtcore/_build.py); firmware does not see it. */
#ifndef RTCORE_HOST_H
#define RTCORE_HOST_H

extern __thread long rtcore_host_saturated;
#define RTCORE_ON_SATURATE() ((void)(rtcore_host_saturated++))

#endif
