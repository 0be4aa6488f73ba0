;; Grows by one page at a time and writes to each, so that what it was granted is really used.
(module
  (memory (export "memory") 1)

  ;; One more page, touched; or -1.
  (func $take (result i32)
    (local $page i32)
    (local.set $page (memory.grow (i32.const 1)))
    (if (i32.ge_s (local.get $page) (i32.const 0))
      (then (i32.store (i32.mul (local.get $page) (i32.const 65536)) (i32.const -1))))
    (local.get $page))

  ;; Stops at the first refusal and answers how many pages it has.
  (func (export "grow_until_refused") (result i32)
    (loop $more (br_if $more (i32.ge_s (call $take) (i32.const 0))))
    (memory.size))

  ;; Takes the refusal badly, as programs without a check do.
  (func (export "grow_or_trap")
    (loop $more
      (if (i32.lt_s (call $take) (i32.const 0)) (then (unreachable)))
      (br $more)))

  ;; Asks again for ever, refused or not.
  (func (export "grow_for_ever") (loop $more (drop (call $take)) (br $more)))

  ;; Asks for everything in one step: -1 when refused.
  (func (export "grow_at_once") (param $pages i32) (result i32) (memory.grow (local.get $pages))))
