/* rtcore_dsp.h - three instructions that the DSP extension (Cortex-M4, M7, M33, M55) has, as assembly. Neighbours:
 * rtcore_core.h, rtcore_product.h. */
#ifndef RTCORE_DSP_H
#define RTCORE_DSP_H

/* clang-format off */
/* sum = a + b, saturated to int32 */
#define RTCORE_QADD(sum, a, b) "qadd " sum ", " a ", " b
/* y += (a * b + 2^31) >> 32; a and b are lost */
#define RTCORE_SMMLAR(y, a, b) "smmlar " y ", " a ", " b ", " y
/* a = (a * b + 2^31) >> 32; b is lost */
#define RTCORE_SMMULR(a, b) "smmulr " a ", " a ", " b
/* clang-format on */

#endif
