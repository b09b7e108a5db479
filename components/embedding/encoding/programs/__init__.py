"""What a transformer's layer computes on a CPU, in float32, as programs made by LLVM; addresses in, numbers out.

A library's product writes its result to memory, where the bias, the activation, the residual sum and the norm each read
and write it again. Here a *cell*, a few rows times two vectors of columns, stays in registers through its product, and
what follows is done while a block of rows is in the level 2 cache.

The products of a layer of BERT's kind take an eighth fewer multiplications than by definition (:mod:`.halves`). Each
row of a result is computed from its own sequence alone, in one order of operations, wherever it lies: a text's vector
is the same to the bit whatever it is encoded with.
"""
