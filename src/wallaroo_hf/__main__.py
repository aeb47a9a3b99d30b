"""`python -m wallaroo_hf`, which `torchrun -m` and `accelerate launch -m` start; otherwise the command is `wallaroo`."""

from .cli.main import main

if __name__ == "__main__":
    main()
