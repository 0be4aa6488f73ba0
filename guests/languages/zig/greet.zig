//! Greets a person by name. What it returns is freed by the bindings once the caller has it.
const std = @import("std");
const c = @import("bindings/greet.zig");

// A panic that prints itself would need WASI; this one is a trap.
pub const panic = std.debug.no_panic;

export fn exports_example_guests_greeter_greet(
    who: *c.exports_example_guests_greeter_person_t,
    tone: c.exports_example_guests_greeter_tone_t,
    greeting: *c.exports_example_guests_greeter_greeting_t,
    err: *c.greet_string_t,
) bool {
    const name = who.name.ptr[0..who.name.len];
    if (name.len == 0) {
        c.greet_string_dup(err, "nobody to greet");
        return false;
    }
    const word = if (tone == c.EXPORTS_EXAMPLE_GUESTS_GREETER_TONE_WARM) "Welcome" else "Hello";
    const text = std.fmt.allocPrint(std.heap.c_allocator, "{s}, {s}!", .{ word, name }) catch @panic("no memory");
    greeting.* = .{
        .text = .{ .ptr = text.ptr, .len = text.len },
        .adult = .{ .is_some = who.age.is_some, .val = who.age.val >= 18 },
    };
    return true;
}
