;; A plugin that logs 64 KiB a thousand times, then ends well.
(module
  (import "host" "log" (func $log (param i32 i32)))
  (memory (export "memory") 2)
  (func (export "process") (param i32 i32) (result i32)
    (local $left i32)
    (memory.fill (i32.const 0) (i32.const 120) (i32.const 65536))
    (local.set $left (i32.const 1000))
    (loop $again
      (call $log (i32.const 0) (i32.const 65536))
      (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (i32.const 0)))
