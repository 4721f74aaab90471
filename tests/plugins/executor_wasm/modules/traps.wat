;; Ends badly in several ways.
(module
  (memory (export "memory") 1)
  (func $inner (unreachable))
  (func $outer (call $inner))
  (func (export "unreachable") (call $outer))
  (func (export "divide") (param i32) (result i32) (i32.div_s (i32.const 1) (local.get 0)))
  (func (export "out_of_bounds") (result i32) (i32.load (i32.const 100000)))
  (func $recurse (export "recurse") (param i64) (result i64)
    (i64.add (call $recurse (i64.add (local.get 0) (i64.const 1))) (i64.const 1))))
