// Upper-cases ASCII letters and leaves every other byte as it is.
#define EXPORT(name) __attribute__((export_name(name)))
#define HOST(name) __attribute__((import_module("host"), import_name(name)))

HOST("set_output") void set_output(const unsigned char *bytes, unsigned len);

EXPORT("process") int process(unsigned char *input, unsigned len) {
    for (unsigned i = 0; i < len; i++) {
        if (input[i] >= 'a' && input[i] <= 'z') input[i] -= 'a' - 'A';
    }
    set_output(input, len);
    return 0;
}
