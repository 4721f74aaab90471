;; Asks for memory while it runs.
(module
  (memory (export "memory") 1)
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
  (func (export "grow_and_spin") (param i32)
    (drop (memory.grow (local.get 0)))
    (loop $again (br $again))))
