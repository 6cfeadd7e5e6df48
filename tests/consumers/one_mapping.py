"""Maps a file once, and has many processes fault its pages, each from another place on.

    one_mapping.py FILE PROCESSES    prints what each has read, as SHA-256 of the file
"""

import hashlib
import mmap
import os
import sys


def read_from(mapping: mmap.mmap, start: int) -> str:
    pages = range(0, len(mapping), mmap.PAGESIZE)
    for page in (*pages[start:], *pages[:start]):
        mapping[page]
    return hashlib.sha256(mapping).hexdigest()


def main() -> None:
    path, processes = sys.argv[1], int(sys.argv[2])
    with open(path, "rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    pages = len(mapping) // mmap.PAGESIZE
    all_there, start = os.pipe()
    children = []
    for number in range(processes):
        if (child := os.fork()) == 0:
            os.close(start)
            os.read(all_there, 1)  # ends when the parent closes its side
            digest = read_from(mapping, pages * number // processes)
            os.write(1, f"{digest}\n".encode())
            os._exit(0)
        children.append(child)
    os.close(start)
    failed = [child for child in children if os.waitpid(child, 0)[1] != 0]
    sys.exit(f"{len(failed)} processes failed" if failed else 0)


main()
