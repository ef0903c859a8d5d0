/* Calls a compiled model from C.
 *
 * The model of this example has one input and one output of four floats, and its symbol is `model`:
 *
 *     partita compile model.onnx -o model.so
 *     unzip -o model.so include/model.h include/partita.h
 *     cc -Iinclude main.c ./model.so -o main
 *     ./main 1 2 3 4
 */
#include <stdio.h>
#include <stdlib.h>

#include "model.h"

int main(int count, char **words) {
    char message[256];
    float x[4] = {0};
    partita_instance *instance;
    for (int index = 0; index < 4 && index + 1 < count; index++)
        x[index] = strtof(words[index + 1], NULL);

    /* The weights are mapped from model.so itself. */
    if (model_open(NULL, &instance, message, sizeof message)) {
        fprintf(stderr, "%s\n", message);
        return 1;
    }
    const partita_tensor input = {.data = x, .data_type = 1 /* FLOAT */, .rank = 1, .shape = {4}};
    partita_tensor output = {.data = NULL}; /* the instance brings memory, and says the shape */
    if (model_run(instance, &input, &output)) {
        fprintf(stderr, "%s\n", model_error(instance));
        model_close(instance);
        return 1;
    }
    for (int64_t index = 0; index < output.shape[0]; index++)
        printf("%.9g\n", ((const float *)output.data)[index]);
    model_close(instance);
    return 0;
}
