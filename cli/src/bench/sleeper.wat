;; The benchmark's guest that waits for the host: as many nanoseconds as the eight bytes on stdin say, then it says so.
(module
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "awake")
  ;; One buffer's start and length at 0, how many bytes or events there were at 8. A subscription at 64, its clock at 80 and its
  ;; time at 88; its event at 128.
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 88))
    (i32.store (i32.const 4) (i32.const 8))
    (if (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)) (then (unreachable)))
    (i32.store (i32.const 80) (i32.const 1))
    (if (call $poll_oneoff (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 8)) (then (unreachable)))
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const 5))
    (if (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)) (then (unreachable)))))
