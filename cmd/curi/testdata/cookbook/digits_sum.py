from pathlib import Path


def digits_sum(directory):
    return sum(int(number) for number in (Path(directory) / "numbers.txt").read_text().split())
