// The arrays of a video, and what follows from them.

function readVideo(buffer, task, video) {
  const own = { ...video, task, T: video.count, n: Math.ceil(video.count / video.step) };
  for (const name of ["crop", "has", "truth", "decided"]) own[name] = arrayOf(buffer, video[name]);
  own.p = Object.fromEntries(Object.entries(video.p).map(([key, ref]) => [key, arrayOf(buffer, ref)]));
  own.audio = video.audio && { level: arrayOf(buffer, video.audio.level), voice: arrayOf(buffer, video.audio.voice) };
  own.frame = summed(arrayOf(buffer, video.frames), 1);
  own.time = summed(arrayOf(buffer, video.ticks), 1e-4);
  own.end = own.T > 1 ? own.time[own.T - 1] + (own.time[own.T - 1] - own.time[0]) / (own.T - 1) : own.time[0] + 0.04;
  return own;
}

function summed(steps, unit) {
  const sums = new Float64Array(steps.length);
  let sum = 0;
  for (let i = 0; i < steps.length; i++) sums[i] = (sum += steps[i]) * unit;
  return sums;
}

// Stretches of equal values: [value, first row, row after the last].
function runsOf(count, valueAt) {
  const runs = [];
  for (let i = 0, start = 0, value = valueAt(0); i < count; i++) {
    const next = i + 1 < count ? valueAt(i + 1) : undefined;
    if (next !== value) {
      runs.push([value, start, i + 1]);
      [start, value] = [i + 1, next];
    }
  }
  return runs;
}

function timeAfter(video, row) {
  return row < video.T ? video.time[row] : video.end;
}

function sampledTimes(video) {
  return Array.from({ length: video.n }, (_, j) => video.time[j * video.step]);
}

function scaled(code, low, high) {
  return code === MISSING ? null : low + (code / (MISSING - 1)) * (high - low);
}

// The last row at or before a time.
function rowOf(video, time) {
  let low = 0, high = video.T - 1;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (video.time[middle] <= time) low = middle;
    else high = middle - 1;
  }
  return low;
}
