"use strict";
/* Data files are scripts, as a page that was opened from a folder may load nothing else. Each calls
   atlas(key, value) once; the key is also the file's name below data/. */
const Atlas = {};
(() => {
  const RECENT = 400; // Chunks of neurons and samples that are kept; columns and words all are.
  const arrived = new Map();
  const loads = new Map();

  window.atlas = (key, value) => { arrived.set(key, value); };

  /** The value of a key, from its file; a failed load is tried again by the next call. */
  Atlas.load = (key) => {
    if (!loads.has(key)) loads.set(key, fetchScript(key));
    return loads.get(key);
  };

  const fetchScript = (key) => new Promise((resolve, reject) => {
    const script = document.createElement("script");
    const fail = () => {
      loads.delete(key);
      script.remove();
      reject(new Error(`data/${key}.js could not be read`));
    };
    script.src = `data/${key}.js`;
    script.onerror = fail;
    script.onload = () => {
      if (!arrived.has(key)) return fail();
      script.remove();
      resolve(arrived.get(key));
      arrived.delete(key);
      forgetOld();
    };
    document.head.append(script);
  });

  const forgetOld = () => {
    const chunks = [...loads.keys()].filter((key) => /^(neurons|samples)\//.test(key));
    for (const key of chunks.slice(0, Math.max(0, chunks.length - RECENT))) loads.delete(key);
  };

  /** The bytes of a base64 string, in a buffer of their own. */
  Atlas.bytes = (packed) => {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(packed);
    const text = atob(packed);
    const bytes = new Uint8Array(text.length);
    for (let place = 0; place < text.length; place += 1) bytes[place] = text.charCodeAt(place);
    return bytes;
  };

  /** The chunk that holds a sample. */
  Atlas.loadSample = async (id) => {
    const chunk = Math.floor(id / Atlas.index.sample_chunk);
    const samples = await Atlas.load(`samples/${Math.floor(chunk / Atlas.index.per_folder)}/${chunk}`);
    return samples[id] || { problem: "this sample was not written" };
  };
})();
