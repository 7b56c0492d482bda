/** The bundle of words that the views speak with, handed down to every component. */
import { nullTranslator, type TranslationBundle } from '@jupyterlab/translation';
import { createContext, useContext } from 'react';

export const DOMAIN = 'qnb';

export const Words = createContext<TranslationBundle>(nullTranslator.load(DOMAIN));

export function useWords(): TranslationBundle {
  return useContext(Words);
}
