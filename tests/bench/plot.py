"""A bar per row: how many times the alternative's figure ours is, on a logarithmic axis. SVG by hand."""
import html
import math

ROW, LEFT, WIDTH, PAD = 22, 330, 420, 30


def x_of(ratio, low, high):
    return LEFT + WIDTH * (math.log10(ratio) - low) / (high - low)


def good(row):
    return row["ratio"] >= 1 if row["unit"] == "/s" else row["ratio"] <= 1


def ratios(rows):
    rows = [r for r in rows if r["ratio"]]
    logs = [math.log10(r["ratio"]) for r in rows] or [0]
    low, high = math.floor(min(logs + [-1])), math.ceil(max(logs + [1]))
    height = PAD * 2 + ROW * len(rows)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 90}" height="{height}" '
           'font-family="sans-serif" font-size="12">',
           '<rect width="100%" height="100%" fill="white"/>',
           f'<text x="{LEFT}" y="16" fill="#555">ours / alternative (logarithmic; left of 1 is less)</text>']
    for e in range(low, high + 1):
        x = x_of(10**e, low, high)
        out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{PAD - 6}" y2="{height - PAD}" '
                   f'stroke="{"#333" if e == 0 else "#ddd"}"/>'
                   f'<text x="{x:.1f}" y="{height - 12}" text-anchor="middle" fill="#555">{10.0**e:g}</text>')
    one = x_of(1, low, high)
    for i, r in enumerate(rows):
        x, y = x_of(r["ratio"], low, high), PAD + i * ROW
        out.append(f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{html.escape(r["name"])}</text>'
                   f'<rect x="{min(x, one):.1f}" y="{y + 3}" width="{max(abs(x - one), 1):.1f}" height="{ROW - 8}" '
                   f'fill="{"#2a7f62" if good(r) else "#c77d2e"}"/>'
                   f'<text x="{max(x, one) + 4:.1f}" y="{y + 14}" fill="#333">{r["ratio"]:.2f}</text>')
    return "\n".join(out + ["</svg>"]) + "\n"
