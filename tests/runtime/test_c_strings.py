"""Strings from C: a program without Python, under the sanitizers, that feeds a model its own results."""

from __future__ import annotations

import onnx
import pytest
from test_c import run_linked

import partita

TEXT = """<ir_version: 10, opset_import: ["" : 21]>
    model (string[2] x) => (string[2] y) <string[1] w = {"+"}> { s = StringConcat(x, w)  y = StringConcat(s, x) }"""
MAIN = r"""
#include <stdio.h>
#include <string.h>
#include "partita.h"
#include "model.h"

int main(void) {
    char message[256];
    partita_instance *instance;
    const int64_t table[] = {1, '+'}; /* the only string ends at 1, then its text */
    const void *constants[] = {table};
    const partita_options options = {.size = sizeof options, .constants = constants};
    partita_string words[2] = {{"a", 1}, {"", 0}};
    const partita_tensor input = {.data = words, .data_type = 8, .rank = 1, .shape = {2}};
    partita_tensor output = {.data = NULL};
    if (model_open(&options, &instance, message, sizeof message)) {
        puts(message);
        return 1;
    }
    for (int run = 0; run < 3; run++) {
        if (model_run(instance, &input, &output)) {
            puts(model_error(instance));
            return 1;
        }
        memcpy(words, output.data, sizeof words); /* text of this run is the next one's input */
        printf("%.*s %.*s\n", (int)words[0].bytes, words[0].data, (int)words[1].bytes, words[1].data);
    }
    model_close(instance);
    return 0;
}
"""


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_a_c_program_gives_and_takes_strings(sanitizer, tmp_path):
    (tmp_path / "main.c").write_text(MAIN)
    module = partita.compile(onnx.parser.parse_model(TEXT), name="model")
    result = run_linked(module, tmp_path, [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"])
    if "unexpected memory mapping" in result.stderr:
        pytest.skip("the thread sanitizer does not know this kernel's memory layout")
    wanted, words = [], ["a", ""]
    for _ in range(3):
        words = [word + "+" + word for word in words]
        wanted.append(" ".join(words))
    assert result.stdout.split("\n")[:3] == wanted, result.stdout + result.stderr
    assert result.returncode == 0, result.stderr
