// Greets a person by name. What it returns is freed by the bindings once the caller has it.
#define _GNU_SOURCE
#include "bindings/greet.h"

#include <stdio.h>
#include <stdlib.h>

bool exports_example_guests_greeter_greet(exports_example_guests_greeter_person_t *who,
                                          exports_example_guests_greeter_tone_t tone,
                                          exports_example_guests_greeter_greeting_t *greeting, greet_string_t *err) {
    if (who->name.len == 0) {
        greet_string_dup(err, "nobody to greet");
        return false;
    }
    const char *word = tone == EXPORTS_EXAMPLE_GUESTS_GREETER_TONE_WARM ? "Welcome" : "Hello";
    int len = asprintf((char **)&greeting->text.ptr, "%s, %.*s!", word, (int)who->name.len, (char *)who->name.ptr);
    if (len < 0) abort();
    greeting->text.len = len;
    greeting->adult.is_some = who->age.is_some;
    greeting->adult.val = who->age.val >= 18;
    return true;
}
