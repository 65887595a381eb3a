// Shows the values under the pointer, or under the arrow keys. The data stands beside each drawing.
for (const figure of document.querySelectorAll('.chart')) {
  const drawing = figure.querySelector(':scope > svg');
  const data = figure.querySelector('script');
  if (!data) continue;
  const series = JSON.parse(data.textContent).filter(({ points }) => points.length > 0);
  const places = [...new Set(series.flatMap(({ points }) => points.map(([x]) => x)))].sort((a, b) => a - b);
  const hover = figure.querySelector('.hover');
  const tip = figure.querySelector('.tip');
  let place = -1;

  const show = (index) => {
    place = Math.max(0, Math.min(places.length - 1, index));
    const x = places[place];
    const lines = [];
    let said = '';
    for (const { name, points } of series) {
      const near = points.reduce((best, point) => (Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best));
      // A series that has nothing near here has nothing to say.
      if (Math.abs(near[0] - x) > 12) continue;
      if (near[0] === x) said = near[2];
      lines.push(`${series.length > 1 ? `${name}: ` : ''}${near[3]}`);
    }
    const title = document.createElement('b');
    title.textContent = said;
    tip.replaceChildren(title, ...lines.flatMap((line) => [line, document.createElement('br')]));
    tip.hidden = false;
    hover.setAttribute('visibility', 'visible');
    for (const end of ['x1', 'x2']) hover.firstElementChild.setAttribute(end, x);
    const [box, frame] = [drawing.getBoundingClientRect(), figure.getBoundingClientRect()];
    const left = box.left - frame.left + (x * box.width) / drawing.viewBox.baseVal.width;
    const width = tip.offsetWidth;
    const isRight = left + 14 + width < frame.width - 8;
    tip.style.left = `${Math.max(8, isRight ? left + 14 : left - 14 - width)}px`;
    tip.style.top = `${box.top - frame.top + box.height * 0.12}px`;
  };
  const hide = () => {
    tip.hidden = true;
    hover.setAttribute('visibility', 'hidden');
    place = -1;
  };
  drawing.addEventListener('pointermove', (event) => {
    const box = drawing.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * drawing.viewBox.baseVal.width;
    const near = places.reduce((best, at, index) => (Math.abs(at - x) < Math.abs(places[best] - x) ? index : best), 0);
    show(near);
  });
  drawing.addEventListener('pointerleave', hide);
  drawing.addEventListener('blur', hide);
  drawing.addEventListener('keydown', (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    show(place + step);
  });
}
