/** The icon of the files that are shown: a net of three ops. */
import { LabIcon } from '@jupyterlab/ui-components';

export const netIcon = new LabIcon({
  name: 'qnb:net',
  svgstr: `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 22 22" fill="none">
  <g class="jp-icon3 jp-icon-selectable" stroke="#616161" stroke-width="1.6"><path d="M11 7v3M6 14l5-4 5 4"/></g>
  <g class="jp-icon3 jp-icon-selectable" fill="#616161">
    <rect x="7" y="2.5" width="8" height="5" rx="1"/>
    <rect x="2" y="13.5" width="8" height="5" rx="1"/>
    <rect x="12" y="13.5" width="8" height="5" rx="1"/>
  </g>
</svg>`
});
