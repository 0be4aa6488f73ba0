//! Counts lines, words and bytes, as wc does.
const std = @import("std");

pub fn main(init: std.process.Init) !void {
    var read_buffer: [4096]u8 = undefined;
    var reader = std.Io.File.stdin().readerStreaming(init.io, &read_buffer);
    var lines: u64 = 0;
    var words: u64 = 0;
    var bytes: u64 = 0;
    var in_word = false;
    while (reader.interface.takeByte()) |byte| : (bytes += 1) {
        const space = std.ascii.isWhitespace(byte);
        if (byte == '\n') lines += 1;
        if (!space and !in_word) words += 1;
        in_word = !space;
    } else |err| if (err != error.EndOfStream) return err;

    var write_buffer: [64]u8 = undefined;
    var writer = std.Io.File.stdout().writerStreaming(init.io, &write_buffer);
    try writer.interface.print("{d} {d} {d}\n", .{ lines, words, bytes });
    try writer.interface.flush();
}
