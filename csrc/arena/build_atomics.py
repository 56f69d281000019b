# SPDX-License-Identifier: GPL-2.0-or-later
"""Describes the extension `multiroot.arena._atomics` to setuptools (cffi, API mode, stable ABI)."""

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent

ffibuilder = FFI()
ffibuilder.cdef(
    """
    void mra_init(void);
    int mra_flush_kind(void);
    uint64_t mra_load_acquire(const void *word);
    void mra_store_release(void *word, uint64_t value);
    uint64_t mra_compare_exchange(void *word, uint64_t expected, uint64_t desired);
    void mra_flush(const void *start, size_t size);
    uint32_t mra_crc32c(const void *data, size_t size);
    uint32_t mra_crc32c_table(const void *data, size_t size);
    uint64_t mra_tsc(void);

    struct mra_switch {
        int vmm;
        int state_changed;
        uint64_t state;
        uint64_t decision;
        void *owner;
        uint64_t expected, desired, seen;
        const char *loaded[4];
        const char *go;
        size_t go_size;
        char *buffer;
        size_t size, used, line;
        int step;
        uint64_t stamps[5];
    };
    int mra_switch(struct mra_switch *s, int until);
    uint64_t mra_abort_switch(struct mra_switch *s);
    """
)
ffibuilder.set_source(
    "multiroot.arena._atomics",
    '#include "switch.h"',
    include_dirs=[str(HERE)],
    extra_compile_args=["-O2", "-Wall", "-Wextra", "-Werror=implicit-function-declaration"],
)
