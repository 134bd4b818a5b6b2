/* rtcore_lineage.h - the float layers under the names of the RNNoise/Opus family, for firmware written for it.
 *
 * Tables and calls of that family compile unchanged: structs DenseLayer and GRULayer, compute_dense, compute_gru,
 * MAX_NEURONS, ACTIVATION_*. Two generations, one per build (their ACTIVATION_* numbers differ, so tables name them):
 *
 *   default               nnet.h: float tables, reset_after 0 or 1, compute_activation. The structs are rtcore's own.
 *   RTCORE_LINEAGE_INT8   RNNoise 0.1: int8 tables of 1/256, reset gate before the recurrent product. Link
 *                         rtcore_lineage_int8.c, too.
 *
 * Not here: layers of more fields (subias, sparse, embeddings), softmax. Sigmoid and tanh are accurate where the family
 * approximates them. compute_gru keeps 12 * MAX_NEURONS bytes on the caller's stack; nothing checks a layer's width but
 * rtcore_gru_f32_check(&gru, MAX_NEURONS), or rtcore_lineage_int8_gru_check: call it once.
 * Neighbours: rtcore.h (the structs), rtcore_dense_f32.c, rtcore_gru_f32.c (the arithmetic).
 */
#ifndef RTCORE_LINEAGE_H
#define RTCORE_LINEAGE_H

#include <stddef.h>

#include "rtcore.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MAX_NEURONS RTCORE_MAX_NEURONS

#ifndef RTCORE_LINEAGE_INT8

#define ACTIVATION_LINEAR RTCORE_ACTIVATION_LINEAR
#define ACTIVATION_SIGMOID RTCORE_ACTIVATION_SIGMOID
#define ACTIVATION_TANH RTCORE_ACTIVATION_TANH
#define ACTIVATION_RELU RTCORE_ACTIVATION_RELU

typedef rtcore_dense_f32 DenseLayer;
typedef rtcore_gru_f32 GRULayer;

/* output: f32 [N]; input: f32 [N], may be the output */
static inline void compute_activation(float *output, const float *input, int N, int activation) {
    rtcore_activation_f32(output, input, N, activation);
}

/* output: f32 [nb_neurons]; input: f32 [nb_inputs], not overlapping */
static inline void compute_dense(const DenseLayer *layer, float *output, const float *input) {
    rtcore_dense_f32_step(layer, output, input);
}

/* state: f32 [nb_neurons], read and replaced; input: f32 [nb_inputs], not overlapping */
static inline void compute_gru(const GRULayer *gru, float *state, const float *input) {
    float scratch[3 * MAX_NEURONS];
    rtcore_gru_f32_step(gru, state, input, scratch);
}

RTCORE_STATIC_ASSERT(lineage_activations,
                     ACTIVATION_LINEAR == 0 && ACTIVATION_SIGMOID == 1 && ACTIVATION_TANH == 2 && ACTIVATION_RELU == 3);
RTCORE_STATIC_ASSERT(lineage_gru_reset_after,
                     offsetof(GRULayer, reset_after) == 3 * sizeof(const float *) + 3 * sizeof(int));

#else

#define WEIGHTS_SCALE (1.f / 256) /* value of a weight or bias = raw * WEIGHTS_SCALE */

#define ACTIVATION_TANH 0
#define ACTIVATION_SIGMOID 1
#define ACTIVATION_RELU 2

typedef signed char rnn_weight;

typedef struct {
    const rnn_weight *bias;          /* i8 [nb_neurons] */
    const rnn_weight *input_weights; /* i8 [nb_inputs][nb_neurons] */
    int nb_inputs;
    int nb_neurons;
    int activation; /* ACTIVATION_* of this generation */
} rtcore_lineage_int8_dense;

typedef struct {
    const rnn_weight *bias;              /* i8 [3N], z r h */
    const rnn_weight *input_weights;     /* i8 [nb_inputs][3N] */
    const rnn_weight *recurrent_weights; /* i8 [N][3N] */
    int nb_inputs;
    int nb_neurons; /* N */
    int activation; /* of the candidate */
} rtcore_lineage_int8_gru;

typedef rtcore_lineage_int8_dense DenseLayer;
typedef rtcore_lineage_int8_gru GRULayer;

/* 0 or the first RTCORE_E_* that is wrong; capacity: neurons */
int rtcore_lineage_int8_dense_check(const rtcore_lineage_int8_dense *layer);
int rtcore_lineage_int8_gru_check(const rtcore_lineage_int8_gru *gru, int capacity);
void rtcore_lineage_int8_dense_step(const rtcore_lineage_int8_dense *layer, float *output, const float *input);
/* scratch: f32 [3N] */
void rtcore_lineage_int8_gru_step(const rtcore_lineage_int8_gru *gru, float *state, const float *input, float *scratch);

/* output: f32 [nb_neurons]; input: f32 [nb_inputs], not overlapping */
static inline void compute_dense(const DenseLayer *layer, float *output, const float *input) {
    rtcore_lineage_int8_dense_step(layer, output, input);
}

/* state: f32 [nb_neurons], read and replaced; input: f32 [nb_inputs], not overlapping */
static inline void compute_gru(const GRULayer *gru, float *state, const float *input) {
    float scratch[3 * MAX_NEURONS];
    rtcore_lineage_int8_gru_step(gru, state, input, scratch);
}

#endif

/* Positional initialisers of the family's tables rely on this order. */
RTCORE_STATIC_ASSERT(lineage_dense_tables,
                     offsetof(DenseLayer, bias) == 0 && offsetof(DenseLayer, input_weights) == sizeof(const void *));
RTCORE_STATIC_ASSERT(lineage_dense_ints,
                     offsetof(DenseLayer, nb_inputs) == 2 * sizeof(const void *) &&
                         offsetof(DenseLayer, nb_neurons) == offsetof(DenseLayer, nb_inputs) + sizeof(int) &&
                         offsetof(DenseLayer, activation) == offsetof(DenseLayer, nb_inputs) + 2 * sizeof(int));
RTCORE_STATIC_ASSERT(lineage_gru_tables, offsetof(GRULayer, bias) == 0 &&
                                             offsetof(GRULayer, input_weights) == sizeof(const void *) &&
                                             offsetof(GRULayer, recurrent_weights) == 2 * sizeof(const void *));
RTCORE_STATIC_ASSERT(lineage_gru_ints,
                     offsetof(GRULayer, nb_inputs) == 3 * sizeof(const void *) &&
                         offsetof(GRULayer, nb_neurons) == offsetof(GRULayer, nb_inputs) + sizeof(int) &&
                         offsetof(GRULayer, activation) == offsetof(GRULayer, nb_inputs) + 2 * sizeof(int));

#ifdef __cplusplus
}
#endif

#endif
