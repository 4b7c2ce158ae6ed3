"""Download in a Tk main loop, which watches the descriptor and the deadline: python in_tk.py URL PATH"""

import math
import sys
import time
import tkinter
from tkinter import ttk

import rawdl


def main(url: str, path: str) -> None:
    root = tkinter.Tk()
    bar = ttk.Progressbar(root)
    bar.pack()
    timer = root.after(0, lambda: None)
    with rawdl.Client() as client:
        task = client.download_file(url=url, file_path=path)
        task.on_progress_update(lambda p: bar.configure(value=p.progress))

        def turn(*ready: object) -> None:
            nonlocal timer
            root.after_cancel(timer)
            if not client.step(0):
                root.quit()
            elif (deadline := client.next_deadline()) is not None:
                timer = root.after(max(0, math.ceil((deadline - time.monotonic()) * 1000)), turn)

        root.createfilehandler(client.fileno(), tkinter.READABLE, turn)
        root.after_idle(turn)
        root.mainloop()
        root.deletefilehandler(client.fileno())
        print(f"{bar['value']:g} %,", task.result().data_length, "bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
