;; Hands the host pointers that lie outside its memory. The first input byte chooses the import and the pointer in it
;; ('l' log, 'o' set_output, 'g' get_state, 'r' read_state, 'k' set_state's key, 'v' set_state's value,
;; 'd' delete_state), the second the range: '0' the last address, '1' all 4 GiB from 0, '2' across the end of memory,
;; '3' just past the end, '4' a length that wraps around. Any other input ends with exit code 99, as does a host that
;; lets one of these through.
(module
  (import "host" "log" (func $log (param i32 i32)))
  (import "host" "set_output" (func $set_output (param i32 i32)))
  (import "host" "get_state" (func $get_state (param i32 i32) (result i32)))
  (import "host" "read_state" (func $read_state (param i32 i32) (result i32)))
  (import "host" "set_state" (func $set_state (param i32 i32 i32 i32)))
  (import "host" "delete_state" (func $delete_state (param i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "key")

  (func $ptr (param $range i32) (result i32)
    (local $end i32)
    (local.set $end (i32.mul (memory.size) (i32.const 65536)))
    (block $wrap (block $past (block $across (block $all (block $last
      (br_table $last $all $across $past $wrap (local.get $range)))
      (return (i32.const 0xffffffff)))
      (return (i32.const 0)))
      (return (i32.sub (local.get $end) (i32.const 1))))
      (return (local.get $end)))
    (i32.const 16))

  (func $len (param $range i32) (result i32)
    (block $wrap (block $past (block $across (block $all (block $last
      (br_table $last $all $across $past $wrap (local.get $range)))
      (return (i32.const 1)))
      (return (i32.const 0xffffffff)))
      (return (i32.const 2)))
      (return (i32.const 1)))
    (i32.const 0xfffffff8))

  (func (export "process") (param $input i32) (param $input_len i32) (result i32)
    (local $import i32) (local $ptr i32) (local $len i32)
    (local.set $import (i32.load8_u (local.get $input)))
    (local.set $ptr (call $ptr (i32.sub (i32.load8_u offset=1 (local.get $input)) (i32.const 48))))
    (local.set $len (call $len (i32.sub (i32.load8_u offset=1 (local.get $input)) (i32.const 48))))
    (if (i32.eq (local.get $import) (i32.const 0x6c))
      (then (call $log (local.get $ptr) (local.get $len))))
    (if (i32.eq (local.get $import) (i32.const 0x6f))
      (then (call $set_output (local.get $ptr) (local.get $len))))
    (if (i32.eq (local.get $import) (i32.const 0x67))
      (then (drop (call $get_state (local.get $ptr) (local.get $len)))))
    (if (i32.eq (local.get $import) (i32.const 0x72))
      (then
        (call $set_state (i32.const 0) (i32.const 3) (i32.const 0) (i32.const 3))
        (drop (call $get_state (i32.const 0) (i32.const 3)))
        (drop (call $read_state (local.get $ptr) (local.get $len)))))
    (if (i32.eq (local.get $import) (i32.const 0x6b))
      (then (call $set_state (local.get $ptr) (local.get $len) (i32.const 0) (i32.const 3))))
    (if (i32.eq (local.get $import) (i32.const 0x76))
      (then (call $set_state (i32.const 0) (i32.const 3) (local.get $ptr) (local.get $len))))
    (if (i32.eq (local.get $import) (i32.const 0x64))
      (then (call $delete_state (local.get $ptr) (local.get $len))))
    (i32.const 99)))
